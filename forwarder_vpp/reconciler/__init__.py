"""Brings what exists to what is wanted: wake, scope, apply, verify, back off."""
