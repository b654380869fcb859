"""How one field of a VPP message is laid out: scalars, texts, addresses, nested structures.

Everything is packed, and big endian but for 64-bit floats. A coder names its ``struct`` format and
moves between one Python value and the ``struct`` values behind it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from struct import Struct
from typing import Annotated, Any, Protocol, TypeAlias

Ip: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Interface | IPv6Interface

_IP4 = 0  # address_family of the API; IPv6 is 1
_IP4_SIZE = 4
_DOUBLE = Struct("<d")


class Coder(Protocol):
    """The layout of one field of fixed size."""

    @property
    def fmt(self) -> str:
        """``struct`` format without byte order."""

    def put(self, value: Any, out: list[object]) -> None:
        """Append the ``struct`` values of ``value``."""

    def get(self, values: Iterator[Any]) -> Any:
        """Take the ``struct`` values of one value."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number or truth value, by ``struct`` letter."""

    fmt: str

    def put(self, value: object, out: list[object]) -> None:
        """As is."""
        out.append(value)

    def get(self, values: Iterator[Any]) -> Any:
        """As is."""
        return next(values)


@dataclass(frozen=True, slots=True)
class Double:
    """A 64-bit float: the one type the API leaves in little endian."""

    fmt: str = "8s"

    def put(self, value: float, out: list[object]) -> None:
        """As eight bytes."""
        out.append(_DOUBLE.pack(value))

    def get(self, values: Iterator[Any]) -> float:
        """From eight bytes."""
        number: float = _DOUBLE.unpack(next(values))[0]
        return number


@dataclass(frozen=True, slots=True)
class Four:
    """Four 32-bit numbers (the MTUs of an interface)."""

    fmt: str = "4I"

    def put(self, value: tuple[int, int, int, int], out: list[object]) -> None:
        """As four values."""
        out.extend(value)

    def get(self, values: Iterator[Any]) -> tuple[int, int, int, int]:
        """From four values."""
        return (next(values), next(values), next(values), next(values))


@dataclass(frozen=True, slots=True)
class Text:
    """A text in a zero-filled field of ``size`` bytes; longer ones are refused, VPP would cut silently."""

    size: int

    @property
    def fmt(self) -> str:
        """A byte string."""
        return f"{self.size}s"

    def put(self, value: str, out: list[object]) -> None:
        """UTF-8, at least one zero byte at the end."""
        data = value.encode()
        if len(data) >= self.size:
            raise ValueError(f"text of {len(data)} bytes does not fit {self.size - 1}: {value!r}")
        out.append(data)

    def get(self, values: Iterator[Any]) -> str:
        """Up to the first zero byte."""
        data: bytes = next(values)
        return data.partition(b"\0")[0].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Raw:
    """``size`` bytes as they are (MAC addresses, keys)."""

    size: int

    @property
    def fmt(self) -> str:
        """A byte string."""
        return f"{self.size}s"

    def put(self, value: bytes, out: list[object]) -> None:
        """Exactly ``size`` bytes."""
        if len(value) != self.size:
            raise ValueError(f"expected {self.size} bytes, got {len(value)}")
        out.append(value)

    def get(self, values: Iterator[Any]) -> bytes:
        """As is."""
        data: bytes = next(values)
        return data


def _ip(family: int, data: bytes) -> Ip:
    return IPv4Address(data[:_IP4_SIZE]) if family == _IP4 else IPv6Address(data)


@dataclass(frozen=True, slots=True)
class AddressCoder:
    """``vl_api_address``: the family, then 16 bytes of which IPv4 uses the first four."""

    fmt: str = "B16s"

    def put(self, value: Ip, out: list[object]) -> None:
        """Family and bytes."""
        out.append(_IP4 if value.version == 4 else 1)
        out.append(value.packed)

    def get(self, values: Iterator[Any]) -> Ip:
        """An address of its family."""
        return _ip(next(values), next(values))


@dataclass(frozen=True, slots=True)
class PrefixCoder:
    """``vl_api_prefix``: an address and its prefix length; host bits are kept."""

    fmt: str = "B16sB"

    def put(self, value: Network, out: list[object]) -> None:
        """Family, bytes, length."""
        out.extend((_IP4 if value.version == 4 else 1, value.ip.packed, value.network.prefixlen))

    def get(self, values: Iterator[Any]) -> Network:
        """An interface address of its family."""
        address = _ip(next(values), next(values))
        length = next(values)
        if isinstance(address, IPv4Address):
            return IPv4Interface((address, length))
        return IPv6Interface((address, length))


@dataclass(frozen=True, slots=True)
class LastText:
    """A text at the end of the message: a 32-bit length, then as many bytes."""


@dataclass(frozen=True, slots=True)
class LastArray:
    """Elements at the end of the message; their number is in the ``Count`` field declared before."""

    element: Coder


@dataclass(frozen=True, slots=True)
class Count:
    """The place of the number of elements of the ``LastArray``, by ``struct`` letter."""

    fmt: str


flag = Annotated[bool, Scalar("?")]
u8 = Annotated[int, Scalar("B")]
u16 = Annotated[int, Scalar("H")]
u32 = Annotated[int, Scalar("I")]
i32 = Annotated[int, Scalar("i")]
f64 = Annotated[float, Double()]
four = Annotated[tuple[int, int, int, int], Four()]
text32 = Annotated[str, Text(32)]
text64 = Annotated[str, Text(64)]
text256 = Annotated[str, Text(256)]
last_text = Annotated[str, LastText()]
mac = Annotated[bytes, Raw(6)]
key32 = Annotated[bytes, Raw(32)]
ipaddr = Annotated[Ip, AddressCoder()]
ipnet = Annotated[Network, PrefixCoder()]
last_ipnets = Annotated[tuple[Network, ...], LastArray(PrefixCoder())]
last_u32 = Annotated[tuple[int, ...], LastArray(Scalar("I"))]
