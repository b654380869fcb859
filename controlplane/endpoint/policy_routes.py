"""Policy-based routes an endpoint gives its clients: the file of NSM_PBR_CONFIG_PATH (reference §3.14, §5.4).

The file is a YAML list of ``{from, proto, dstport, srcport, routes: [{prefix, nexthop}]}``; underscores and
case in the keys do not matter, ``port`` is upstream's older name of ``dstport``. No file means no policies.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Final

import yaml

from nsm.model.context import IpContext, PolicyRoute, Route

_PORTS: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_ENTRY_KEYS: Final = {"from", "proto", "dstport", "srcport", "routes"}
_ROUTE_KEYS: Final = {"prefix", "nexthop"}


class PolicyRouteError(Exception):
    """Every mistake of the file, one a line, each naming its entry and field."""


def load_policies(file: Path) -> tuple[PolicyRoute, ...]:
    """The policies of a file; none where it does not exist. PolicyRouteError lists every bad entry."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyRouteError(f"{file}: expected a readable file, got {error}") from error
    return parse_policies(text, str(file))


def parse_policies(text: str, source: str) -> tuple[PolicyRoute, ...]:
    """The policies of a YAML text; ``source`` names it in messages."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PolicyRouteError(f"{source}: expected YAML, got {error}") from error
    if content is None:
        return ()
    if not isinstance(content, list):
        raise PolicyRouteError(f"{source}: expected a list of policies, got {type(content).__name__}")
    problems: list[str] = []
    policies = tuple(_policy(entry, f"{source}: [{place}]", problems) for place, entry in enumerate(content))
    if problems:
        raise PolicyRouteError("\n".join(problems))
    return policies


def with_policies(context: IpContext, policies: Sequence[PolicyRoute]) -> IpContext:
    """The context with exactly these policies; their ``from`` addresses replace those of the former ones."""
    former = {policy.source for policy in context.policies if policy.source}
    kept = [address for address in context.src_ip_addrs if address not in former]
    added = [policy.source for policy in policies if policy.source]
    return replace(context, policies=tuple(policies), src_ip_addrs=tuple(dict.fromkeys((*kept, *added))))


def _policy(entry: object, place: str, problems: list[str]) -> PolicyRoute:
    fields = _fields(entry, _ENTRY_KEYS, place, problems)
    if "port" in fields:
        fields.setdefault("dstport", fields["port"])
    routes = fields.get("routes") or []
    if not isinstance(routes, list):
        problems.append(f"{place}.routes: expected a list of routes, got {routes!r}")
        routes = []

    def text(name: str, expected: str, check: Callable[[str], object]) -> str:
        return _text(fields.get(name), f"{place}.{name}", expected, check, problems)

    return PolicyRoute(
        source=text("from", "an address like 10.0.0.1/24", ip_interface),
        proto=text("proto", "a protocol number 0..255", _protocol),
        dst_port=text("dstport", "a port or a range like 80-90", _port_range),
        src_port=text("srcport", "a port or a range like 80-90", _port_range),
        routes=tuple(
            _route(route, f"{place}.routes[{index}]", problems) for index, route in enumerate(routes)
        ),
    )


def _route(entry: object, place: str, problems: list[str]) -> Route:
    fields = _fields(entry, _ROUTE_KEYS, place, problems)
    if not fields.get("prefix") and isinstance(entry, Mapping):
        problems.append(f"{place}.prefix: expected a prefix like 10.0.0.0/24, got none")
    return Route(
        prefix=_text(fields.get("prefix"), f"{place}.prefix", "a prefix like 10.0.0.0/24", _prefix, problems),
        next_hop=_text(fields.get("nexthop"), f"{place}.nexthop", "an address", ip_address, problems),
    )


def _fields(entry: object, known: set[str], place: str, problems: list[str]) -> dict[str, object]:
    if not isinstance(entry, Mapping):
        problems.append(f"{place}: expected a mapping, got {entry!r}")
        return {}
    fields = {str(key).lower().replace("_", ""): value for key, value in entry.items()}
    allowed = known | {"port"} if "dstport" in known else known
    problems.extend(f"{place}.{key}: expected one of {sorted(known)}" for key in fields if key not in allowed)
    return fields


def _text(
    value: object, place: str, expected: str, check: Callable[[str], object], problems: list[str]
) -> str:
    """The value as text, checked; YAML reads numbers without quotes as numbers."""
    if value is None or value == "":
        return ""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    try:
        check(text)
    except ValueError:
        problems.append(f"{place}: expected {expected}, got {value!r}")
    return text


def _protocol(text: str) -> None:
    if not (text.isascii() and text.isdigit() and int(text) < 256):
        raise ValueError(text)


def _port_range(text: str) -> None:
    match = _PORTS.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last < 2**16:
        raise ValueError(text)


def _prefix(text: str) -> None:
    ip_network(text, strict=False)  # host bits are accepted as upstream's example has them
