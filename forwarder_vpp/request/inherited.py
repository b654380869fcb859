"""What the Go forwarder that had a connection before us may have left in the workloads' namespaces.

Told to end, it removes its links; killed, it leaves them with the name and the addresses that ours need. They are known
by their alias (sdk-vpp ``pkg/tools/mechutils``): the role of the forwarder's chain, and the id the path begins with.
"""

from collections.abc import Iterator

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, NetnsId
from nsm.model.connection import Connection


def has_lived(connection: Connection) -> bool:
    """Whether a Request is about a connection that somebody had before: it has addresses or hops behind us."""
    route = connection.route
    return len(route.segments) > route.index + 1 or bool(connection.ip.src_ip_addrs)


def left_links(intent: Intent, connection: Connection) -> Iterator[tuple[NetnsId, str]]:
    """Namespace and alias of each link that may be there."""
    first = connection.route.segments[0].id
    for end, role in ((intent.client, "server"), (intent.endpoint, "client")):
        if isinstance(end, KernelEnd):
            yield end.netns, f"{role}-{first}"
