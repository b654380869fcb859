"""From the intent of a connection to the items of a dataplane. Pure."""
