"""Carries plans out, and keeps what exists equal to what is wanted."""
