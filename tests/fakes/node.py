"""A process of the mesh inside a test: identity, tokens, verifier, policies and channels of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nsm.identity.tokens import PathTokens, PathTokenVerifier
from nsm.policy.rules import Policies
from nsm.service.daemon import Node
from nsm.transport.channel import Channels
from tests.fakes.identity import FakeAuthority

TOKEN_LIFETIME = 600.0


@asynccontextmanager
async def fake_node(
    authority: FakeAuthority, path: str, *, token_lifetime: float = TOKEN_LIFETIME
) -> AsyncIterator[Node]:
    """``path`` is that of the SPIFFE ID."""
    identity = authority.identity(path)
    tokens = PathTokens(identity, max_lifetime=token_lifetime)
    verifier = PathTokenVerifier()
    channels = Channels(identity, tokens)
    node = Node(
        identity=identity,
        tokens=tokens,
        verifier=verifier,
        policies=Policies(verifier),
        channels=channels,
    )
    try:
        yield node
    finally:
        await channels.close()
