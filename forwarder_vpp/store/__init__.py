"""The intent of live connections, kept across restarts."""
