"""Measures near a limit before a call is refused: its output is capped, or it goes to a cheaper model."""
