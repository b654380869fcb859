"""Links of another forwarder in a workload's namespace, known by their alias."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.linux_node import dataplane, inside

pytestmark = [pytest.mark.linux, pytest.mark.netns]


@pytest.fixture
def places(make_netns: Callable[[str], Path]) -> list[Path]:
    """A node, and two workloads with two links each."""
    made = [make_netns(label) for label in "nce"]
    inside(made[0], "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    for place in made[1:]:
        for name, alias in (("nsm-1", "server-nsc-0"), ("nsm-2", "server-nsc-01")):
            inside(place, "ip", "link", "add", name, "type", "bridge")
            inside(place, "ip", "link", "set", name, "alias", alias)
    return made


async def test_only_links_of_that_alias_in_that_namespace_go(places: list[Path], tmp_path: Path) -> None:
    node, client, endpoint = places
    async with dataplane(node, tmp_path) as plane:
        netns = plane.namespaces.learn(str(client))
        assert await plane.namespaces.remove_foreign(netns, "server-nsc-0") == 1
        assert await plane.namespaces.remove_foreign(netns, "server-nsc-0") == 0
    shown = inside(client, "ip", "-o", "link")
    assert "nsm-1" not in shown
    assert "nsm-2" in shown
    assert "nsm-1" in inside(endpoint, "ip", "-o", "link")
