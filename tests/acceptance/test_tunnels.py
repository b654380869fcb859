"""Several tunnels between two nodes: each stands and falls by itself."""

from contextlib import ExitStack

from nsmctl.lab.demonstration import flows_of
from tests.scenes import Scene, carried


def test_the_middle_one_of_three_wireguard_tunnels_goes_and_nobody_else_notices(lab: Scene) -> None:
    """Deletion in the middle breaks later handshakes on a shared port; ours have a port each (design §6)."""
    lab.endpoint("server")
    connections = {}
    for name in ("first", "middle", "last"):
        (connections[name],) = lab.client(name, "server-service")
    with ExitStack() as stack:
        running = [
            stack.enter_context(lab.probes(flows_of(connections[name], port)[:1], name, "server"))
            for port, name in ((4242, "first"), (4243, "last"))
        ]
        lab.remove("middle")
        (newest,) = lab.client("newest", "server-service")  # its handshake comes after the deletion
        carried(lab.probe(newest, "newest", "server", rate=200, seconds=0.2))
        for probes in running:
            carried(probes.finish(), families=1)
