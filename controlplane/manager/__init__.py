"""The manager of a node: chooses the forwarder, rewrites URLs, adds excluded prefixes."""
