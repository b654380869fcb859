"""The kernel's network namespaces as the objects see them: blocking work, done on a worker thread."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.netlink.links import Link
from forwarder_vpp.dataplane.netlink.session import Session
from forwarder_vpp.dataplane.netlink.tags import Tags
from nsm.model.errors import Code, NsmError

ResultT = TypeVar("ResultT")

NETNS_FIELD: Final = "mechanism.parameters.inodeURL"

NODE: Final = NetnsId(0, 0, 0)
"""The namespace of the forwarder itself."""


class Netlink(Protocol):
    """Namespaces that can be worked in; nothing into a workload's namespace stays open between two calls.

    A namespace that is gone or cannot be reached: NsmError FAILED_PRECONDITION, field
    ``mechanism.parameters.inodeURL``.
    """

    @property
    def tags(self) -> Tags:
        """The ownership marks of this forwarder."""

    def nsid(self, netns: NetnsId) -> int | None:
        """The id of ``netns`` at the node, -1 for ``NODE`` itself; ``None`` = it is gone, or was never seen."""

    def present(self, netns: NetnsId) -> bool:
        """Whether ``netns`` still exists."""

    async def at_node(self, work: Callable[[Session], ResultT]) -> ResultT:
        """``work`` in the node's namespace."""

    async def inside(self, netns: NetnsId, work: Callable[[Session], ResultT]) -> ResultT:
        """``work`` on a thread that stands in ``netns``, with a session there."""

    async def with_fds(
        self, namespaces: Sequence[NetnsId], work: Callable[[Session, Mapping[NetnsId, int]], ResultT]
    ) -> ResultT:
        """``work`` at the node with a descriptor of each namespace, closed afterwards."""

    async def links(self) -> Sequence[Link]:
        """Every link with our mark, at the node and in every namespace that has an id there."""

    async def remove(self, link: Link) -> None:
        """Delete a link; returns when it is no longer to be seen, the kernel's clean-up goes on behind."""


def nsid_of(netlink: Netlink, netns: NetnsId) -> int:
    """The id of a namespace at the node; NsmError FAILED_PRECONDITION if it is gone."""
    nsid = netlink.nsid(netns)
    if nsid is None:
        raise unreachable(netns)
    return nsid


async def inside(netlink: Netlink, netns: NetnsId, work: Callable[[Session], ResultT]) -> ResultT:
    """``work`` in ``netns``, which may be the node's own."""
    if netns == NODE:
        return await netlink.at_node(work)
    return await netlink.inside(netns, work)


def unreachable(netns: NetnsId) -> NsmError:
    """What is said of a namespace that cannot be worked in."""
    text = (
        f"expected a network namespace that exists, but {netns.device}/{netns.inode} is gone or out of reach"
    )
    return NsmError(Code.FAILED_PRECONDITION, text, field=NETNS_FIELD)
