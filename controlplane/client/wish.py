"""What one connection of a client shall be, and the Request that asks for it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nsm.model.connection import Connection, State
from nsm.model.errors import NsmError, invalid
from nsm.model.mechanism import INODE_URL, INTERFACE_NAME, KERNEL, LOCAL, Mechanism
from nsm.model.path import Path, PathSegment


@dataclass(frozen=True, slots=True)
class Wish:
    """``name`` is our path segment's, ``id`` its id (``<name>-<index>``); ``netns`` is ``file:///path``.

    ``interface`` is the name asked for; ``any_interface`` = it was made up, so an older one may stay.
    """

    name: str
    id: str
    service: str
    interface: str = ""
    netns: str = ""
    mechanism: str = KERNEL
    labels: Mapping[str, str] = field(default_factory=dict)
    any_interface: bool = False

    @property
    def preferences(self) -> tuple[Mechanism, ...]:
        """The mechanism we offer; a descriptor of the namespace goes with it."""
        if self.mechanism != KERNEL:
            return (Mechanism(LOCAL, self.mechanism, {}),)
        return (Mechanism(LOCAL, KERNEL, {INODE_URL: self.netns, INTERFACE_NAME: self.interface}),)

    def first(self) -> Connection:
        """The connection of the first Request."""
        path = Path(index=0, segments=(PathSegment(name=self.name, id=self.id),))
        return Connection(id=self.id, network_service=self.service, labels=dict(self.labels), path=path)

    def fits(self, found: Connection) -> bool:
        """Whether a connection of before our start, as the manager has it, is the one wanted."""
        mechanism = found.mechanism
        return (
            found.network_service == self.service
            and mechanism is not None
            and mechanism.type == self.mechanism
            and (self.any_interface or mechanism.get(INTERFACE_NAME) == self.interface)
        )

    def adopted(self, found: Connection) -> Connection:
        """The connection the manager has, seen from our segment again (reference §3.7)."""
        segments = found.route.segments
        return replace(
            self.ours(found),
            id=self.id,
            path=replace(found.route, index=0, segments=segments),
            state=State.UP,
        )

    def ours(self, answer: Connection) -> Connection:
        """The answer with our own namespace in its mechanism: a refresh sends the descriptor again (trap 19).

        INVALID_ARGUMENT for a mechanism we did not offer.
        """
        mechanism = answer.mechanism
        if mechanism is None or (mechanism.cls, mechanism.type) != (LOCAL, self.mechanism):
            got = f"{mechanism.cls} {mechanism.type}" if mechanism else "none"
            raise _foreign(self.mechanism, got)
        if mechanism.type == KERNEL:
            mechanism = mechanism.having(**{INODE_URL: self.netns})
        return replace(answer, mechanism=mechanism)


def _foreign(wanted: str, got: str) -> NsmError:
    return invalid("connection.mechanism", f"{LOCAL} {wanted}, the mechanism we offered", got)
