"""Identity: SPIFFE source, path tokens, embedded workload identity service (spiffe and cryptography live here only)."""
