"""NSM's control plane: manager, registry, endpoint, client."""
