"""Every message of the table, name, CRC and field by field, against vpp_papi and the API files of VPP."""

from collections.abc import Iterator
from dataclasses import fields
from ipaddress import ip_interface, ip_network
from struct import Struct
from typing import Any, get_args, get_type_hints

import pytest

from forwarder_vpp.dataplane.vpp.codec import REQUEST, Layout, Spec, StructCoder
from forwarder_vpp.dataplane.vpp.fields import (
    AddressCoder,
    Count,
    Double,
    Four,
    Ip,
    LastArray,
    LastText,
    PrefixCoder,
    Raw,
    Text,
)
from forwarder_vpp.dataplane.vpp.table import SPECS

ENUMS = {"type", "flags", "proto", "mode", "link_duplex", "sub_if_flags", "is_permit", "af", "tap_flags"}
ZERO = {"label_stack", "n_labels"}
WHOLE = {5: 32, 17: 128}
RENAMED = {"next_hop": "address"}


class Numbers:
    """Distinct sample values, so that a swapped field shows."""

    def __init__(self, family: int) -> None:
        self._next = 1
        self.family = family

    def take(self) -> int:
        self._next += 1
        return self._next


def sample(name: str, coder: object, numbers: Numbers) -> Any:
    number = numbers.take()
    text = str(number)
    v6 = numbers.family == 6
    if isinstance(coder, Text | LastText):
        return f"text-{text}"
    if isinstance(coder, Raw):
        last = WHOLE.get(coder.size, number)  # a prefix length in those two
        return bytes(coder.size) if name in ZERO else bytes([number] * (coder.size - 1) + [last])
    if isinstance(coder, Four):
        return (number, number + 100, number + 200, number + 300)
    if isinstance(coder, Double):
        return number + 0.5
    if isinstance(coder, AddressCoder):
        return ip_interface(f"2001:db8::{text}" if v6 else f"10.0.0.{text}").ip
    if isinstance(coder, PrefixCoder):
        return ip_interface(f"2001:db8:{text}::/48" if v6 else f"10.{text}.0.0/16")
    if isinstance(coder, LastArray):
        return tuple(sample(name, coder.element, numbers) for _ in range(2))
    if isinstance(coder, StructCoder):
        return coder.make(lambda part, each: sample(part, each, numbers))
    if getattr(coder, "fmt", "") == "?":
        return number % 2 == 0
    return 0 if name in ZERO else 1 if name in ENUMS else number


def sample_message(cls: type[Any], numbers: Numbers) -> Any:
    hints = get_type_hints(cls, include_extras=True)
    return cls(**{f.name: sample(f.name, get_args(hints[f.name])[1], numbers) for f in fields(cls)})


def ours(message: Any) -> Iterator[tuple[str, object]]:
    """Our leaves in wire order, counts included."""
    cls = type(message)
    for name in get_type_hints(cls, include_extras=True):
        value = getattr(message, name)
        if isinstance(value, Count):
            arrays = [getattr(message, f.name) for f in fields(cls)]
            yield name, len(next(each for each in reversed(arrays) if isinstance(each, tuple)))
        elif isinstance(value, tuple) and value and hasattr(value[0], "__dataclass_fields__"):
            for each in value:
                yield from ours(each)
        elif name not in ZERO:
            yield RENAMED.get(name, name), plain(value)


def theirs(name: str, value: Any, skip: int = 0) -> Iterator[tuple[str, object]]:
    """vpp_papi's leaves in wire order; ``skip`` leaves out the head."""
    if name in ZERO:
        return
    names = getattr(value, "_fields", ())
    if names and name == "address":
        yield name, plain(value.ip6)
    elif names:
        for each in names[skip:]:
            yield from theirs(each, getattr(value, each))
    elif isinstance(value, list) and value and hasattr(value[0], "_fields"):
        for element in value:
            yield from theirs(name, element)
    else:
        yield name, plain(value)


def plain(value: Any) -> object:
    """One form for what both sides call an address, a prefix, an enum."""
    if isinstance(value, list | tuple):
        return tuple(plain(each) for each in value)
    if hasattr(value, "network"):
        return value.network.network_address.packed + bytes([value.network.prefixlen])
    if hasattr(value, "network_address"):
        return value.network_address.packed + bytes([value.prefixlen])
    if hasattr(value, "packed"):
        return bytes(value.packed)
    return value if isinstance(value, bool | str | bytes | float) else int(value)


def head(spec: Spec) -> bytes:
    return Struct("!HII").pack(3, 5, 7) if spec.kind == REQUEST else Struct("!HI").pack(3, 7)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_name_and_crc_are_those_of_the_api_files(spec: Spec, papi_definitions: dict[str, Any]) -> None:
    assert int(papi_definitions[spec.name].crc, 16) == spec.crc


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_papi_reads_what_we_pack_field_by_field(
    spec: Spec, family: int, papi_definitions: dict[str, Any]
) -> None:
    message = sample_message(spec.cls, Numbers(family))
    body = head(spec) + spec.layout.pack(message)
    read, length = papi_definitions[spec.name].unpack(body)
    assert length == len(body)
    assert list(theirs("", read, skip=3 if spec.kind == REQUEST else 2)) == list(ours(message))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_we_read_what_papi_packs(spec: Spec, family: int, papi_definitions: dict[str, Any]) -> None:
    message = sample_message(spec.cls, Numbers(family))
    definition = papi_definitions[spec.name]
    arguments = as_arguments(definition.unpack(head(spec) + spec.layout.pack(message))[0])
    arguments["_vl_msg_id"] = 3
    packed = definition.pack(arguments)
    assert spec.layout.unpack(packed, len(head(spec))) == message


def as_arguments(value: Any) -> Any:
    """vpp_papi's result as the keyword arguments vpp_papi takes."""
    if hasattr(value, "_fields"):
        if value._fields == ("ip4", "ip6"):
            return {"ip6": value.ip6}
        return {
            name: as_arguments(getattr(value, name)) for name in value._fields if not name.startswith("_")
        }
    if isinstance(value, list):
        return [as_arguments(each) for each in value]
    return value


def test_the_samples_tell_fields_apart() -> None:
    numbers = Numbers(4)
    values = [numbers.take() for _ in range(50)]
    assert len(set(values)) == len(values)


def test_a_layout_knows_its_size_without_the_array() -> None:
    for spec in SPECS:
        layout: Layout = spec.layout
        assert layout.size == Struct("!" + layout.fmt).size


def test_prefixes_keep_their_host_bits() -> None:
    address: Ip = ip_interface("10.0.0.7/24").ip
    out: list[object] = []
    PrefixCoder().put(ip_interface("10.0.0.7/24"), out)
    assert PrefixCoder().get(iter(out)).ip == address
    assert ip_network("10.0.0.0/24") == PrefixCoder().get(iter(out)).network
