"""Alerts: their text, the search for them, and the channels that send them."""
