"""What NSM talks about, as frozen dataclasses without I/O: connections, paths, mechanisms, endpoints, errors."""
