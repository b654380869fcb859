"""NSM's authorisation rules, built in; each denial names its rule."""
