"""Bytes that are no message, at every unary method of the running daemons: INVALID_ARGUMENT, never a traceback."""

import asyncio
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsm.model.errors import Code, NsmError
from nsm.service.config import NsmSettings
from nsm.service.daemon import open_node
from nsm.wire import methods
from nsm.wire.method import Method
from nsmctl.lab import identities
from tests.scenes import Scene

NETWORK_SERVICE = (methods.NETWORK_SERVICE_REQUEST, methods.NETWORK_SERVICE_CLOSE)
REGISTRY = (methods.NS_REGISTER, methods.NSE_REGISTER, methods.NS_UNREGISTER, methods.NSE_UNREGISTER)
BROKEN = st.binary(min_size=1, max_size=200).map(lambda body: b"\x0a\xff\xff\x7f" + body)
"""A field that claims to be longer than what follows: no decoder can accept it."""


def raw(method: Method[Any, Any]) -> Method[bytes, Any]:
    """The method with a request that is sent as it is."""
    return replace(method, encode_request=bytes)


async def send(lab: Scene, bodies: list[tuple[bytes, bool]]) -> None:
    near = lab.near
    targets = {
        near.manager: (*NETWORK_SERVICE, *REGISTRY),
        f"unix://{near.directory}/forwarder.sock": NETWORK_SERVICE,
        f"unix://{lab.far.directory}/server.sock": NETWORK_SERVICE,
    }
    chosen = NsmSettings(name=identities.OPERATOR, identity_dir=str(near.identities), dial_timeout=10.0)
    async with open_node(chosen) as node:
        for url, served in targets.items():
            for method in served:
                for body, is_broken in bodies:
                    code = await outcome(node.channels.get(url).unary(raw(method), body, timeout=15.0))
                    if is_broken or not decodes(method, body):
                        assert code is Code.INVALID_ARGUMENT, (url, method.path, body, code)
                    else:
                        assert code not in {Code.INTERNAL, Code.UNKNOWN, Code.UNAVAILABLE}, (url, body, code)


async def outcome(call: Any) -> Code:
    try:
        await call
    except NsmError as error:
        return error.code
    return Code.OK


def decodes(method: Method[Any, Any], body: bytes) -> bool:
    try:
        method.decode_request(body)
    except NsmError:
        return False
    return True


def test_bytes_that_are_no_message(lab: Scene) -> None:
    lab.endpoint("server")

    @settings(
        max_examples=4,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(
        st.lists(BROKEN, min_size=2, max_size=6), st.lists(st.binary(max_size=300), min_size=2, max_size=6)
    )
    def fuzz(broken: list[bytes], anything: list[bytes]) -> None:
        bodies = [(body, True) for body in broken] + [(body, False) for body in anything]
        asyncio.run(send(lab, bodies))

    fuzz()
    (connection,) = lab.client("caller", "server-service")
    assert connection["endpoint"] == "server"
