"""What a Go peer expects of a refresh that nothing in one exchange alone would show."""

from collections.abc import AsyncIterator

import pytest

from nsm.model.mechanism import IP
from tests.unit.forwarder_vpp.request.test_forwarder_role import Bench, kernel, wireguard


@pytest.fixture
async def answering() -> AsyncIterator[Bench]:
    made = Bench()
    await made.role.adopt()
    yield made
    await made.stop()


async def test_an_answered_wireguard_tunnel_keeps_its_key_over_refreshes(answering: Bench) -> None:
    """The requesting side made its peer of the first answer's key, and compares nothing afterwards."""
    answering.registry.payload = IP
    offered = wireguard()
    answer = await answering.request(preferences=(offered,))
    again = await answering.request(answer, preferences=(offered,))
    assert again.mechanism == answer.mechanism
    assert again.mechanism is not None
    assert again.mechanism.get("dst_public_key")


async def test_what_was_agreed_on_comes_before_the_preferences_of_a_refresh(answering: Bench) -> None:
    """Go clients send both for ever; a preference in front of the agreed one must not move the connection."""
    answer = await answering.request(preferences=(kernel(), wireguard()))
    again = await answering.request(answer, preferences=(wireguard(), kernel("nsm-2")))
    assert again.mechanism == answer.mechanism == kernel()
