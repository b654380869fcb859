"""Making a link so that a failure leaves nothing and a foreign link is never touched."""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from forwarder_vpp.dataplane.netlink import links, syscalls, wire
from forwarder_vpp.dataplane.netlink.links import Link
from forwarder_vpp.dataplane.netlink.session import GONE, NetlinkError, Session
from forwarder_vpp.dataplane.netlink.tags import Tag, Tags
from nsm.model.errors import Code, NsmError

NAME_FIELD: Final = "mechanism.parameters.name"


@dataclass(frozen=True, slots=True)
class End:
    """Where a link will be: the namespace by id and by descriptor (``None`` = the node), the name, the mark.

    ``prepare`` is called with a session there, before the link is up; without ``up`` it stays down.
    """

    nsid: int
    fd: int | None
    name: str
    tag: Tag
    prepare: Callable[[Session], None] | None = None
    up: bool = True


@contextmanager
def session_in(node: Session, fd: int | None) -> Iterator[Session]:
    """A session in the namespace of ``fd``, the thread inside it; links can be changed only from there."""
    if fd is None:
        yield node
        return
    with syscalls.standing_in(fd), Session() as there:
        try:
            yield there
        finally:
            node.writes += there.writes


def make(session: Session, tags: Tags, send: Callable[[], None], ends: Sequence[End]) -> list[Link]:
    """``send`` the message that makes a link with these ends; mark every end and take it up if it is to be.

    What is in the way: as ``place`` says.
    """
    place(session, tags, send, ends)
    try:
        for end in ends:
            with session_in(session, end.fd) as there:
                if end.fd is None:
                    _silence(end.name)
                if end.prepare is not None:
                    end.prepare(there)
                alias = [(wire.IFLA_IFALIAS, wire.text(tags.alias(end.tag)))]
                change = links.change(end.name, alias, up=True if end.up else None)
                there.change(change, f"to mark {end.name}")
        return [links.find(session, end.nsid, end.name, tags) for end in ends]
    except BaseException:
        removals = ((links.remove_named(end.nsid, end.name), f"to remove {end.name}") for end in ends)
        session.change_all(removals, ignore=GONE)
        raise


def place(session: Session, tags: Tags, send: Callable[[], None], ends: Sequence[End]) -> None:
    """``send`` the message that brings a link to these ends, without marking it.

    A link of the same owner that is in the way (another kind of tunnel of the same connection) is replaced, and so is
    one whose making was cut short; any other one is NsmError ALREADY_EXISTS.
    """
    try:
        send()
    except NetlinkError as error:
        if error.errno != errno.EEXIST or not _cleared(session, tags, ends):
            raise
        send()


def _cleared(session: Session, tags: Tags, ends: Sequence[End]) -> bool:
    """Whether what was in the way was ours and is gone now."""
    stale = []
    for end in ends:
        try:
            link = links.find(session, end.nsid, end.name, tags)
        except NetlinkError as error:
            if error.errno in GONE:
                continue
            raise
        if not link.is_half_made(tags) and (link.tag is None or link.tag.owner != end.tag.owner):
            text = (
                f"expected a free interface name, but {end.name!r} exists in the namespace"
                " and is not this connection's"
            )
            raise NsmError(Code.ALREADY_EXISTS, text, field=NAME_FIELD)
        stale.append((links.remove(end.nsid, link.index), f"to replace {end.name}"))
    session.change_all(stale, ignore=GONE)
    return bool(stale)


def _silence(name: str) -> None:
    """An end at the node belongs to VPP: the kernel shall not speak IPv6 on it (it is still down)."""
    switch = Path("/proc/sys/net/ipv6/conf") / name / "disable_ipv6"
    with suppress(FileNotFoundError):  # a kernel without IPv6
        switch.write_text("1")
