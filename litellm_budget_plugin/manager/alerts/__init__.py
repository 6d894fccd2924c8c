"""Alerts: what they say, who sends each of them, and where to."""
