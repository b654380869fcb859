"""``kernel://service[@domain]/interface?label=value``: one network service a client wants (reference §5.3). Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from controlplane.workload import check_interface_name
from nsm.model.mechanism import KERNEL, NOOP

FORM: Final = "kernel://service[@domain]/interface?label=value"
_TYPES: Final = (KERNEL, NOOP)


@dataclass(frozen=True, slots=True)
class ServiceUrl:
    """``interface`` empty = a name is made up; ``service`` keeps its ``@domain``."""

    service: str
    mechanism: str = KERNEL
    interface: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
        """What makes two URLs the same wish."""
        return self.service, self.mechanism, self.interface, tuple(sorted(self.labels.items()))

    @classmethod
    def parse(cls, text: str) -> "ServiceUrl":
        """ValueError ``expected ...`` names what is wrong with it."""
        try:
            url = urlsplit(text)
        except ValueError as error:
            raise ValueError(f"expected {FORM}, got {text!r} ({error})") from error
        mechanism = url.scheme.upper()
        service = unquote(url.netloc)
        if mechanism not in _TYPES:
            known = " or ".join(kind.lower() for kind in _TYPES)
            raise ValueError(f"expected {FORM} with the mechanism {known}, got {text!r}")
        name, at, domain = service.partition("@")
        if not name or (at and not domain):
            raise ValueError(f"expected the name of a network service in {FORM}, got {text!r}")
        interface = unquote(url.path.rstrip("/").rpartition("/")[2])
        if interface:
            try:
                check_interface_name(interface)
            except ValueError as error:
                raise ValueError(f"{error} in {text!r}") from error
        return cls(service, mechanism, interface, _labels(text, url.query))


def _labels(text: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise ValueError(f"expected labels like ?color=red&size=big, got {text!r}") from error
    labels: dict[str, str] = {}
    for key, value in pairs:
        labels.setdefault(key, value)  # a repeated label: the first counts, as upstream has it
    return labels


def parse_services(values: Iterable[str]) -> tuple[ServiceUrl, ...]:
    """Every service of a list; ValueError names each mistake, one a line, and every interface name used twice."""
    problems: list[str] = []
    found: list[ServiceUrl] = []
    names: dict[str, str] = {}
    for text in values:
        try:
            url = ServiceUrl.parse(text)
        except ValueError as error:
            problems.append(str(error))
            continue
        if url.interface and url.interface in names:
            problems.append(
                f"expected each interface name once, got {url.interface!r} in {names[url.interface]!r} and {text!r}"
            )
        names.setdefault(url.interface, text)
        found.append(url)
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(found)
