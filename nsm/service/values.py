"""Text of configuration variables to values, in the forms the Go components read (reference §5).

Every parser takes the text of a variable, or the value a YAML file or a default gave, and raises ValueError
``expected ...`` on anything else. Text is read as upstream does: a variable set but empty is empty.
"""

import json
import re
from collections.abc import Mapping
from fractions import Fraction
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final
from urllib.parse import urlsplit

from nsm.model.context import DnsConfig

Network = IPv4Network | IPv6Network

_UNITS: Final = {
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 10**3),
    "us": Fraction(1, 10**6),
    "\N{MICRO SIGN}s": Fraction(1, 10**6),
    "\N{GREEK SMALL LETTER MU}s": Fraction(1, 10**6),
    "ns": Fraction(1, 10**9),
}
_PART: Final = re.compile(
    r"(\d+\.?\d*|\.\d+)(ns|us|\N{MICRO SIGN}s|\N{GREEK SMALL LETTER MU}s|ms|s|m|h)", re.ASCII
)
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", "PANIC")
_HOST_PORT: Final = re.compile(r"(\[[^\]/]+\]|[^:/\[\]]*):(\d{1,5})")
_TARGET_FORMS: Final = "unix:///path, tcp://host:port or host:port"


def duration(value: object) -> float:
    """Seconds of a Go duration (``15s``, ``1h30m``, ``200ms``); a number is seconds already."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = value if isinstance(value, str) else ""
    sign = -1 if text.startswith("-") else 1
    body = text[1:] if text[:1] in {"+", "-"} else text
    if body == "0":
        return 0.0
    parts = _PART.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        raise ValueError(f"expected a duration like 15s, 200ms or 1h30m, got {value!r}")
    return float(sign * sum((Fraction(number) * _UNITS[unit] for number, unit in parts), Fraction(0)))


def positive_duration(value: object) -> float:
    """As ``duration``, above zero."""
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError(f"expected a duration above 0s, got {value!r}")
    return seconds


def boolean(value: object) -> bool:
    """A bool as Go's ``strconv.ParseBool`` reads it."""
    if isinstance(value, bool):
        return value
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ValueError(f"expected true or false (also 1, t, 0, f), got {value!r}")


def text_list(value: object) -> tuple[str, ...]:
    """``a,b,c``; blanks around and empty elements are dropped, empty text is no element."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ValueError(f"expected a comma-separated list, got {value!r}")


def text_map(value: object) -> dict[str, str]:
    """``key:value,key:value``; the first colon of a pair separates."""
    if isinstance(value, Mapping):
        return {str(key): _scalar(key, inner) for key, inner in value.items()}
    if not isinstance(value, str):
        raise ValueError(f"expected key:value pairs, got {value!r}")  # noqa: TRY004 - pydantic collects ValueError
    result: dict[str, str] = {}
    for pair in text_list(value):
        key, colon, inner = pair.partition(":")
        if not colon or not key.strip():
            raise ValueError(f"expected key:value pairs separated by commas, got {pair!r} in {value!r}")
        result[key.strip()] = inner.strip()
    return result


def log_level(value: object) -> str:
    """One of TRACE, DEBUG, INFO, WARN, ERROR, FATAL, PANIC in any case; WARNING is WARN."""
    level = value.strip().upper() if isinstance(value, str) else ""
    level = "WARN" if level == "WARNING" else level
    if level not in _LEVELS:
        raise ValueError(f"expected one of {', '.join(_LEVELS)}, got {value!r}")
    return level


def target(value: object) -> str:
    """Where to dial: ``unix:///path``, ``tcp://host:port``, ``host:port``; empty stays empty."""
    text = value.strip() if isinstance(value, str) else None
    if text == "":
        return ""
    if text is None or not _is_target(text):
        raise ValueError(f"expected {_TARGET_FORMS}, got {value!r}")
    return text


def listen_urls(value: object) -> tuple[str, ...]:
    """Where to listen: ``unix:///path`` and ``tcp://[host]:port``, comma-separated."""
    urls = text_list(value)
    for url in urls:
        if not url.startswith(("unix://", "tcp://")) or not _is_target(url):
            raise ValueError(f"expected unix:///path or tcp://host:port in each place, got {url!r}")
    return urls


def urls(value: object) -> tuple[str, ...]:
    """A comma-separated list of URLs that all name a scheme, such as ``kernel://service/interface``."""
    result = text_list(value)
    for url in result:
        try:
            split = urlsplit(url)
        except ValueError:
            split = urlsplit("")
        if not split.scheme or not (split.netloc or split.path):
            raise ValueError(f"expected URLs like scheme://name/..., got {url!r}")
    return result


def dns_configs(value: object) -> tuple[DnsConfig, ...]:
    """JSON ``[{"dns_server_ips": [...], "search_domains": [...]}]``; empty text is no configuration."""
    form = 'a JSON list of {"dns_server_ips": [...], "search_domains": [...]}'
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except json.JSONDecodeError as error:
            raise ValueError(f"expected {form}, got {value!r}") from error
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected {form}, got {value!r}")  # noqa: TRY004 - pydantic collects ValueError
    return tuple(entry if isinstance(entry, DnsConfig) else _dns_config(entry, form) for entry in value)


def prefix_groups(value: object) -> tuple[tuple[Network, ...], ...]:
    """``[a,b],[c],d``: one address pair is allocated from each group; a bare prefix is a group of its own."""
    if isinstance(value, list | tuple):
        return tuple(tuple(_network(prefix) for prefix in _group(inner)) for inner in value)
    if not isinstance(value, str):
        raise ValueError(f"expected prefixes like [10.0.0.0/24,10.1.0.0/24],[fd00::/64], got {value!r}")  # noqa: TRY004
    text = value.replace(" ", "")
    if not re.fullmatch(r"((^|(?<=.),)(\[[^\[\],]+(,[^\[\],]+)*\]|[^\[\],]+))*", text):
        raise ValueError(f"expected prefixes like [10.0.0.0/24,10.1.0.0/24],[fd00::/64], got {value!r}")
    groups = re.findall(r"\[([^\]]*)\]|([^\[\],]+)", text)
    return tuple(tuple(_network(prefix) for prefix in (inner or bare).split(",")) for inner, bare in groups)


def _scalar(key: object, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"expected text as the value of {key!r}, got {value!r}")


def _is_target(text: str) -> bool:
    if text.startswith("unix://"):
        return text.startswith("unix:///") and len(text) > len("unix:///")
    match = _HOST_PORT.fullmatch(text.removeprefix("tcp://"))
    return match is not None and int(match.group(2)) < 2**16


def _dns_config(entry: object, form: str) -> DnsConfig:
    if not isinstance(entry, Mapping):
        raise ValueError(f"expected {form}, got the element {entry!r}")  # noqa: TRY004 - pydantic collects ValueError
    unknown = set(entry) - {"dns_server_ips", "search_domains"}
    if unknown:
        raise ValueError(f"expected only dns_server_ips and search_domains, got {sorted(map(str, unknown))}")
    return DnsConfig(
        dns_server_ips=_texts("dns_server_ips", entry.get("dns_server_ips")),
        search_domains=_texts("search_domains", entry.get("search_domains")),
    )


def _texts(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError(f"expected {name} to be a list of strings, got {value!r}")


def _group(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _network(value: object) -> Network:
    """The network of ``address/length``; host bits are cut as Go's ParseCIDR does."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        if isinstance(value, str) and "/" in value:
            return ip_network(value, strict=False)
    except ValueError:
        pass
    raise ValueError(f"expected a prefix like 10.0.0.0/24 or fd00::/64, got {value!r}")
