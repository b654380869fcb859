"""gRPC behind our own relay: TLS with SPIFFE verification and file descriptors (grpc and ssl live here only)."""
