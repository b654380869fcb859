"""The protocol's pure state machines: path, begin queue, tokens, expiry, refresh, monitor, heal."""
