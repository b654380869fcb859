"""The hops a call has passed, each with its signed token (reference §3.1, §3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PathSegment:
    """One hop: ``expires`` is Unix time in nanoseconds, ``None`` = field not set."""

    name: str = ""
    id: str = ""
    token: str = field(default="", repr=False)
    expires: int | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Path:
    """``connection.Path``: ``index`` is the segment of the hop that sends the message."""

    index: int = 0
    segments: tuple[PathSegment, ...] = ()
    unknown: bytes = field(default=b"", repr=False)

    @property
    def current(self) -> PathSegment | None:
        """The segment at ``index``, if the path has one."""
        return self.segments[self.index] if self.index < len(self.segments) else None

    @property
    def previous(self) -> PathSegment | None:
        """The segment before ``index``, if there is one."""
        return self.segments[self.index - 1] if 0 < self.index <= len(self.segments) else None

    @property
    def following(self) -> PathSegment | None:
        """The segment after ``index``, if there is one."""
        return self.segments[self.index + 1] if self.index + 1 < len(self.segments) else None

    @property
    def following_id(self) -> str:
        """The id of the segment after ``index``, which connection it is to the next hop; empty if there is none."""
        return self.following.id if self.following is not None else ""
