"""The messages of VPP 26.06 that the agent uses, one file per module of the API."""
