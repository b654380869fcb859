"""A VPP that is none: its API socket and a model of what the messages do, as VPP 26.06 behaves."""
