"""The VPP as the objects see it: typed calls and dumps, no socket."""

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

ReplyT = TypeVar("ReplyT")
DetailsT = TypeVar("DetailsT")
ReplyT_co = TypeVar("ReplyT_co", covariant=True)
DetailsT_co = TypeVar("DetailsT_co", covariant=True)
UndoT_contra = TypeVar("UndoT_contra", contravariant=True)


class Call(Generic[ReplyT_co]):
    """A message that VPP answers with exactly one reply of that form."""

    __slots__ = ()


class Dump(Generic[DetailsT_co]):
    """A message that VPP answers with any number of entries of that form."""

    __slots__ = ()


class Vpp(Protocol):
    """One running VPP.

    Calls made in one turn of the loop leave together and are carried out in order. Every method
    raises NsmError: UNAVAILABLE when VPP is gone, DEADLINE_EXCEEDED when it does not answer, else what
    the message's return value stands for.
    """

    @property
    def epoch(self) -> int:
        """Grows whenever another VPP process answers; handles of an older epoch mean nothing."""

    async def call(self, request: Call[ReplyT]) -> ReplyT:
        """Send ``request`` and await its reply."""

    async def calls(self, requests: Sequence[Call[Any]]) -> list[Any]:
        """Send all in one turn, in order; for each its reply or the NsmError it failed with."""

    async def create(self, request: Call[ReplyT], undo: "Undo[ReplyT]", *behind: Call[Any]) -> ReplyT:
        """As ``call``; should the caller have gone when the reply comes, ``undo`` of it is sent.

        ``behind`` leave in the same turn, right behind it. Each belongs to what is made: one that fails has ``undo``
        sent too, and its NsmError is raised.
        """

    async def dump(self, request: Dump[DetailsT]) -> list[DetailsT]:
        """Everything VPP lists in answer to ``request``."""


class Undo(Protocol[UndoT_contra]):
    """Makes the message that takes back what a reply says was made."""

    def __call__(self, reply: UndoT_contra, /) -> Call[object]:
        """The inverse of the call that got ``reply``."""
