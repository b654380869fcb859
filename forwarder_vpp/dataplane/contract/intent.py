"""The intent of one connection: what the store keeps and the items are derived from."""

from dataclasses import dataclass, field

from nsm.model.context import IpNeighbor, PolicyRoute, Route


@dataclass(frozen=True, slots=True, order=True)
class NetnsId:
    """A network namespace: (st_dev, st_ino) of nsfs plus SO_NETNS_COOKIE, as inode numbers are used again."""

    device: int
    inode: int
    cookie: int


@dataclass(frozen=True, slots=True)
class KernelEnd:
    """An interface in a workload's namespace, with everything the connection puts on it.

    ``addresses`` are ``address/length``; ``routes`` have their next hops filled in (empty = on-link).
    """

    netns: NetnsId
    interface: str
    addresses: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[IpNeighbor, ...] = ()
    rules: tuple[PolicyRoute, ...] = ()
    mac: str = ""


@dataclass(frozen=True, slots=True)
class VxlanEnd:
    """A VXLAN tunnel from ``local`` to ``remote`` (addresses); ports are UDP destination ports of each side."""

    local: str
    remote: str
    vni: int
    local_port: int = 4789
    remote_port: int = 4789


@dataclass(frozen=True, slots=True)
class WireguardEnd:
    """A WireGuard tunnel; keys are standard base64 of 32 bytes. ``shared`` = on the port shared with Go peers."""

    local: str
    remote: str
    local_port: int
    remote_port: int
    private_key: str = field(repr=False)
    remote_public_key: str = ""
    shared: bool = False


End = KernelEnd | VxlanEnd | WireguardEnd


@dataclass(frozen=True, slots=True)
class Intent:
    """One cross-connected connection: ``id`` = our own path segment's id, ``owner`` = the ownership tag.

    ``client`` is the end towards the client, ``endpoint`` the end towards the endpoint;
    ``mtu`` is in bytes, of the workload's interface. ``expires`` is Unix seconds; it says nothing about what is
    wanted, so two intents that differ in it only are equal.
    """

    id: str
    owner: str
    payload: str
    mtu: int
    client: End
    endpoint: End
    expires: float = field(default=0.0, compare=False)
