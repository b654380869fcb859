"""Connections end when the trust in the peer's trust domain is withdrawn; a handshake judged it once only."""

from nsm.model.identity import Material


def is_trusted(spiffe_id: str, material: Material) -> bool:
    """Whether any CA of the peer's trust domain is still trusted.

    That one of several CAs has gone ends no connection: a CA is replaced under peers that showed what it signed.
    """
    domain = spiffe_id.removeprefix("spiffe://").partition("/")[0]
    return bool(material.bundles.get(domain))


def withdrawn(spiffe_id: str) -> str:
    """The reason that the pump of such a connection ends with."""
    return f"{spiffe_id}: its trust domain is trusted no longer"
