"""A network service endpoint: IPAM, contexts, serving."""
