"""VPP: session over the binary API, messages, process, statistics."""
