"""What the stores on a server have in common."""
