"""Loads the control plane: Requests, refreshes and Closes, one by one and many at once, and counts what they cost."""
