"""From a class with annotated fields to a message of the VPP API: name, CRC and compiled packers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from struct import Struct
from typing import Any, ClassVar, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

from .fields import Coder, Count, LastArray, LastText, Scalar

T = TypeVar("T")

REQUEST = "request"
REPLY = "reply"
DETAILS = "details"
EVENT = "event"

_LENGTH = Struct("!I")


class Layout:
    """The compiled fields of one class, in the order of declaration."""

    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls
        self._fixed: list[tuple[str, Coder]] = []
        self._last: tuple[str, LastArray | LastText] | None = None
        self._count_at = -1  # index into the struct values
        formats: list[str] = []
        width = 0
        for name, hint in get_type_hints(cls, include_extras=True).items():
            if get_origin(hint) is ClassVar:
                count = getattr(cls, name)
                if isinstance(count, Count):
                    self._count_at = width
                    formats.append(count.fmt)
                    width += 1
                continue
            coder = get_args(hint)[1]
            if isinstance(coder, LastArray | LastText):
                self._last = (name, coder)
                continue
            self._fixed.append((name, coder))
            formats.append(coder.fmt)
            width += len(Struct("!" + coder.fmt).unpack(bytes(Struct("!" + coder.fmt).size)))
        self.fmt = "".join(formats)
        self._struct = Struct("!" + self.fmt)
        self._element = Layout._element_struct(self._last)
        flat = self._last is None and all(isinstance(coder, Scalar) for _, coder in self._fixed)
        names = [name for name, _ in self._fixed]
        self._plain = attrgetter(*names) if flat and len(names) > 1 else None

    @property
    def size(self) -> int:
        """Bytes of the fields, without the elements or text at the end."""
        return self._struct.size

    @staticmethod
    def _element_struct(last: tuple[str, LastArray | LastText] | None) -> Struct | None:
        return Struct("!" + last[1].element.fmt) if last and isinstance(last[1], LastArray) else None

    def pack(self, message: object) -> bytes:
        """The fields of ``message``. ValueError: a value that does not fit its field."""
        if self._plain is not None:
            values: tuple[object, ...] = self._plain(message)
            return self._struct.pack(*values)
        out: list[object] = []
        for name, coder in self._fixed:
            try:
                coder.put(getattr(message, name), out)
            except ValueError as error:
                raise ValueError(f"{self._cls.__name__}.{name}: {error}") from None
        return self._struct.pack(*out) if self._last is None else self._pack_with_last(message, out)

    def _pack_with_last(self, message: object, out: list[object]) -> bytes:
        name, last = self._last or ("", LastText())
        value: Any = getattr(message, name)
        if isinstance(last, LastText):
            data: bytes = value.encode()
            return self._struct.pack(*out) + _LENGTH.pack(len(data)) + data
        elements = self._element or _LENGTH
        parts = []
        for element in value:
            values: list[object] = []
            last.element.put(element, values)
            parts.append(elements.pack(*values))
        out.insert(self._count_at, len(parts))
        return self._struct.pack(*out) + b"".join(parts)

    def unpack(self, data: bytes | memoryview, offset: int = 0) -> Any:
        """The message whose fields begin at ``offset``. struct.error: too short."""
        values = self._struct.unpack_from(data, offset)
        if self._plain is not None:
            return self._cls(*values)
        count = 0
        if self._count_at >= 0:
            count = values[self._count_at]
            values = values[: self._count_at] + values[self._count_at + 1 :]
        taken = iter(values)
        found = {name: coder.get(taken) for name, coder in self._fixed}
        if self._last is not None:
            name, last = self._last
            found[name] = self._unpack_last(last, count, data, offset + self._struct.size)
        return self._cls(**found)

    def _unpack_last(
        self, last: LastArray | LastText, count: int, data: bytes | memoryview, offset: int
    ) -> object:
        if isinstance(last, LastText):
            (length,) = _LENGTH.unpack_from(data, offset)
            start = offset + _LENGTH.size
            return bytes(data[start : start + length]).rstrip(b"\0").decode(errors="replace")
        elements = self._element or _LENGTH
        each = (elements.unpack_from(data, offset + index * elements.size) for index in range(count))
        return tuple([last.element.get(iter(values)) for values in each])


@dataclass(frozen=True, slots=True)
class Spec:
    """A message as VPP knows it: ``kind`` decides the header.

    ``reads`` = it changes nothing; ``alone`` = no other such message may be under way.
    """

    name: str
    crc: int
    kind: str
    layout: Layout
    cls: type[Any]
    reads: bool = False
    answer: type[Any] | None = None
    alone: bool = False

    @property
    def wire_name(self) -> str:
        """The name in VPP's message table: ``name_crc``."""
        return f"{self.name}_{self.crc:08x}"


def spec_of(message: object) -> Spec:
    """The spec of a message or of its class."""
    found: Spec = message.__vpp__  # type: ignore[attr-defined]  # set by the decorators below
    return found


def reply_spec(request: Spec) -> Spec:
    """The spec of the reply of ``request``: ``<name>_reply`` with the CRC of the reply's class."""
    answer = spec_of(request.answer)
    return Spec(f"{request.name}_reply", answer.crc, REPLY, answer.layout, answer.cls)


def _message(
    name: str, crc: int, kind: str, *, reads: bool = False, alone: bool = False
) -> Callable[[type[T]], type[T]]:
    def decorate(cls: type[T]) -> type[T]:
        bases = getattr(cls, "__orig_bases__", ())
        answer = get_args(bases[0])[0] if bases else None
        made = dataclass(frozen=True, slots=True)(cls)
        spec = Spec(name, crc, kind, Layout(made), made, reads, answer, alone)
        made.__vpp__ = spec  # type: ignore[attr-defined]
        return made

    return decorate


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def request(name: str, crc: int, *, reads: bool = False, alone: bool = False) -> Callable[[type[T]], type[T]]:
    """A ``Call``; ``reads`` = it changes nothing in VPP, ``alone`` = one at a time (VPP stands still)."""
    return _message(name, crc, REQUEST, reads=reads, alone=alone)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def dump(name: str, crc: int) -> Callable[[type[T]], type[T]]:
    """A ``Dump``."""
    return _message(name, crc, REQUEST, reads=True)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def reply(crc: int) -> Callable[[type[T]], type[T]]:
    """A reply; several messages share one form and so one CRC."""
    return _message("", crc, REPLY)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def details(name: str, crc: int) -> Callable[[type[T]], type[T]]:
    """One entry of a dump."""
    return _message(name, crc, DETAILS)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def event(name: str, crc: int) -> Callable[[type[T]], type[T]]:
    """A message VPP sends unasked."""
    return _message(name, crc, EVENT)


class StructCoder:
    """A nested structure as one field or array element: its fields in line."""

    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls
        self._coders: list[tuple[str, Coder]] = [
            (name, get_args(hint)[1]) for name, hint in get_type_hints(cls, include_extras=True).items()
        ]
        self.fmt = "".join(coder.fmt for _, coder in self._coders)

    def put(self, value: Any, out: list[object]) -> None:
        """Field by field."""
        for name, coder in self._coders:
            coder.put(getattr(value, name), out)

    def get(self, values: Iterator[Any]) -> Any:
        """Field by field."""
        return self._cls(*[coder.get(values) for _, coder in self._coders])

    def make(self, value: Callable[[str, Coder], object]) -> Any:
        """A structure whose fields are ``value(name, coder)``."""
        return self._cls(*[value(name, coder) for name, coder in self._coders])
