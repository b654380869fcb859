"""Key pairs of WireGuard (Curve25519), as standard base64 of 32 bytes."""

from base64 import b64encode

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


def new_key_pair() -> tuple[str, str]:
    """A fresh private key and its public key."""
    private = X25519PrivateKey.generate()
    return (
        b64encode(private.private_bytes_raw()).decode(),
        b64encode(private.public_key().public_bytes_raw()).decode(),
    )
