"""Making a link so that a failure leaves nothing and a foreign link is never touched."""

import errno
from collections.abc import Sequence

from forwarder_vpp.dataplane.netlink import links, wire
from forwarder_vpp.dataplane.netlink.links import Link
from forwarder_vpp.dataplane.netlink.session import GONE, NetlinkError, Session
from forwarder_vpp.dataplane.netlink.tags import Tag, Tags
from forwarder_vpp.dataplane.netlink.wire import Message
from nsm.model.errors import Code, NsmError

NAME_FIELD = "mechanism.parameters.name"

Place = tuple[int, str]
"""A namespace's id and the name of a link there."""


def make(session: Session, tags: Tags, message: Message, ends: Sequence[tuple[Place, Tag]]) -> list[Link]:
    """Send ``message``, which makes a link with these ends; mark every end and take it up.

    A link of the same owner that is in the way (another kind of tunnel of the same connection) is replaced; any
    other one is NsmError ALREADY_EXISTS.
    """
    name = ends[0][0][1]
    try:
        session.change(message, f"to make {name}")
    except NetlinkError as error:
        if error.errno != errno.EEXIST or not _cleared(session, tags, ends):
            raise
        session.change(message, f"to make {name}")
    try:
        session.change_all((_marked(tags, place, tag), f"to mark {place[1]}") for place, tag in ends)
        return [links.find(session, *place, tags) for place, _ in ends]
    except BaseException:
        unmake(session, [place for place, _ in ends])
        raise


def unmake(session: Session, places: Sequence[Place]) -> None:
    """Remove links by name, gone ones included."""
    session.change_all(((_unnamed(place), f"to remove {place[1]}") for place in places), ignore=GONE)


def _cleared(session: Session, tags: Tags, ends: Sequence[tuple[Place, Tag]]) -> bool:
    """Whether what was in the way was ours and is gone now."""
    stale = []
    for (nsid, name), tag in ends:
        try:
            link = links.find(session, nsid, name, tags)
        except NetlinkError as error:
            if error.errno in GONE:
                continue
            raise
        is_half_made = link.group == tags.group and not link.alias
        if not is_half_made and (link.tag is None or link.tag.owner != tag.owner):
            text = f"expected a free interface name, but {name!r} exists in the namespace and is not this connection's"
            raise NsmError(Code.ALREADY_EXISTS, text, field=NAME_FIELD)
        stale.append((links.remove(nsid, link.index), f"to replace {name}"))
    session.change_all(stale, ignore=GONE)
    return bool(stale)


def _marked(tags: Tags, place: Place, tag: Tag) -> Message:
    nsid, name = place
    return links.change(nsid, name, [(wire.IFLA_IFALIAS, wire.text(tags.alias(tag)))], up=True)


def _unnamed(place: Place) -> Message:
    nsid, name = place
    return links.remove_named(nsid, name)
