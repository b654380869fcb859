"""An independent count of what exists: taken before and after, the difference is what was left behind.

It asks the system's own tools (``ip -j``, ``nft``, ``vppctl``) and /proc, and shares no code with the daemons, so it
cannot share their beliefs. What changes by itself (counters, neighbour states, lifetimes) is not looked at.
"""

import json
import os
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nsmctl.lab import namespaces
from nsmctl.lab.processes import marked

_IP_QUESTIONS: Final = {
    "link": ("link", "show"),
    "address": ("address", "show"),
    "route4": ("-4", "route", "show", "table", "all"),
    "route6": ("-6", "route", "show", "table", "all"),
    "rule4": ("-4", "rule", "show"),
    "rule6": ("-6", "rule", "show"),
    "neighbour": ("neighbour", "show", "nud", "permanent"),
}
_VPP_QUESTIONS: Final = (
    "show interface",
    "show interface address",
    "show mode",
    "show vxlan tunnel",
    "show wireguard interface",
    "show wireguard peer",
    "show l3xc",
    "show acl-plugin acl",
    "show ip neighbors",
)
SETTING: Final = "setting"
_RAISED: Final = Path("/proc/sys/fs/inotify/max_user_instances")
_RAISERS: Final = Path("/run/nsm-inotify-instances")
_READY: Final = "-pool-"
"""In the alias of a link that waits for a connection."""

_FILES: Final = ("/run/wireguard", "/run/netns", "/dev/shm")  # noqa: S108 - looked at, not written


@dataclass(frozen=True, slots=True)
class Census:
    """What was found: facts as text, by kind (``link nsm-n1``, ``process``, ``file``, …)."""

    facts: Mapping[str, frozenset[str]]

    def difference(self, later: "Census") -> tuple[str, ...]:
        """Every fact that came (``+``) or went (``-``) since, sorted; empty = nothing."""
        lines = []
        kinds = self.facts.keys() | later.facts.keys()
        if not (SETTING in self.facts and SETTING in later.facts):
            kinds -= {SETTING}  # at one of the two moments someone used it
        for kind in sorted(kinds):
            before, after = self.facts.get(kind, frozenset()), later.facts.get(kind, frozenset())
            lines += [f"+ {kind}: {fact}" for fact in sorted(after - before)]
            lines += [f"- {kind}: {fact}" for fact in sorted(before - after)]
        return tuple(lines)

    def without_ready_pairs(self) -> "Census":
        """Leave out what a running forwarder keeps ready (``NSM_WARM_POOL``): it is used and made anew at any moment.

        Only whole pairs are: both ends at the node, marked as waiting. Half a pair, or one in VPP alone, stays.
        """
        ends = {fact.split()[0] for facts in self.facts.values() for fact in facts if _READY in fact}
        whole = {end for end in ends if {f"nvp{end[3:]}", f"nwp{end[3:]}"} <= ends}
        return Census(
            {
                kind: frozenset(fact for fact in facts if whole.isdisjoint(_words(fact)))
                for kind, facts in self.facts.items()
            }
        )


def _words(fact: str) -> set[str]:
    return {word.removeprefix("host-").rstrip(":") for word in fact.split()}


def take(
    *,
    spaces: Iterable[Path] = (),
    mark: str = "",
    directories: Iterable[Path] = (),
    vpp_clis: Iterable[Path] = (),
    names: Callable[[str], bool] = lambda _name: True,
) -> Census:
    """Count our own namespace and ``spaces``, processes of ``mark``, files below ``directories``, VPPs by CLI.

    ``names`` chooses among what all programs of this machine share (namespaces, shared memory, sockets by name), so
    that somebody else's comings and goings are not taken for ours.
    """
    folders = tuple(directories)
    facts: dict[str, frozenset[str]] = {"namespace": frozenset(filter(names, namespaces.names()))}
    for space in (namespaces.OWN, *spaces):
        if space.exists():
            facts.update(_network(space))
    if mark:
        seen = {process.pid: process.name for folder in (None, *folders) for process in marked(mark, folder)}
        facts["process"] = frozenset(f"{name}: {count}" for name, count in Counter(seen.values()).items())
    facts.update(settings())
    for directory in map(Path, _FILES):
        facts[f"file {directory}"] = frozenset(filter(names, _files(directory)))
    for directory in folders:
        facts[f"file {directory}"] = frozenset(_files(directory))
    for cli in vpp_clis:
        facts[f"vpp {cli}"] = frozenset(_vpp(cli))
    return Census(facts)


def settings(value: Path = _RAISED, users: Path = _RAISERS) -> Mapping[str, frozenset[str]]:
    """What forwarders change of the whole machine; nothing while one of them uses it, or where none may."""
    if not os.access(value, os.W_OK) or _is_locked(users):
        return {}
    return {SETTING: frozenset({f"{value.name} {value.read_text().strip()}"})}


def _is_locked(file: Path) -> bool:
    """Whether anyone has a flock on it. Only looked at: a lock of ours, however short, would be one user more."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return False
    name = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    locks = map(str.split, Path("/proc/locks").read_text().splitlines())
    return any("FLOCK" in words and name in words for words in locks)


def _network(space: Path) -> Mapping[str, frozenset[str]]:
    label = "here" if space == namespaces.OWN else space.name
    facts = {}
    with namespaces.entered(space):
        for kind, words in _IP_QUESTIONS.items():
            answer = _json(["ip", "-d", "-j", *words])
            facts[f"{kind} {label}"] = frozenset(_FACT[kind](entry) for entry in answer)
        if shutil.which("nft"):
            ruleset = _json(["nft", "-j", "list", "ruleset"])["nftables"]
            facts[f"nftables {label}"] = frozenset(map(_rule, ruleset))
        if (
            label == "here"
        ):  # shared with every program of the host; the lab's own live in namespaces of their own
            return facts
        facts[f"udp {label}"] = frozenset(_sockets("udp")) | frozenset(_sockets("udp6"))
        facts[f"listen {label}"] = frozenset(_sockets("tcp", "0A")) | frozenset(_sockets("tcp6", "0A"))
        facts[f"packet {label}"] = frozenset(_packet_sockets())
    return facts


def _json(argv: list[str]) -> Any:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return json.loads(done.stdout or "[]")


def _link(entry: Mapping[str, Any]) -> str:
    kind = entry.get("linkinfo", {}).get("info_kind", "")
    return f"{entry['ifname']} {kind} mtu {entry['mtu']} {entry.get('ifalias', '')}".rstrip()


def _address(entry: Mapping[str, Any]) -> str:
    shown = sorted(
        f"{address['local']}/{address['prefixlen']}"
        for address in entry.get("addr_info", ())
        if address["scope"] != "link"
    )
    return f"{entry['ifname']} {' '.join(shown)}"


def _chosen(*names: str) -> Any:
    return lambda entry: " ".join(f"{name} {entry[name]}" for name in names if name in entry)


_FACT: Final = {
    "link": _link,
    "address": _address,
    "route4": _chosen("type", "dst", "gateway", "dev", "table", "scope"),
    "route6": _chosen("type", "dst", "gateway", "dev", "table"),
    "rule4": _chosen("priority", "src", "dst", "ipproto", "sport", "dport", "table"),
    "rule6": _chosen("priority", "src", "dst", "ipproto", "sport", "dport", "table"),
    "neighbour": _chosen("dst", "lladdr", "dev"),
}


def _rule(entry: Mapping[str, Any]) -> str:
    """An nftables object without its handle and counters."""
    kind, body = next(iter(entry.items()))
    if kind == "metainfo":
        return kind
    kept = {key: value for key, value in body.items() if key not in {"handle", "index"}}
    return f"{kind} {json.dumps(_without_counters(kept), sort_keys=True)}"


def _without_counters(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: None if k == "counter" else _without_counters(v) for k, v in value.items()}
    return [_without_counters(item) for item in value] if isinstance(value, list) else value


def _sockets(protocol: str, state: str = "") -> Iterable[str]:
    """Bound sockets of the calling thread's namespace, as ``address:port`` in the kernel's hex."""
    for line in _lines(f"/proc/thread-self/net/{protocol}"):
        fields = line.split()
        if not state or fields[3] == state:
            yield f"{protocol} {fields[1]}"


def _packet_sockets() -> Iterable[str]:
    """By link, as links get other numbers."""
    names = {str(number): name for number, name in socket.if_nameindex()}
    found = Counter(line.split()[4] for line in _lines("/proc/thread-self/net/packet"))
    for number, count in found.items():
        yield f"{names.get(number, number)} {count}"


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()[1:]
    except FileNotFoundError:
        return []


def _files(directory: Path) -> Iterable[str]:
    if directory.is_dir():
        for entry in directory.rglob("*"):
            yield str(entry.relative_to(directory))


def _vpp(cli: Path) -> Iterable[str]:
    """What the CLI shows, without counters and timers."""
    for question in _VPP_QUESTIONS:
        done = subprocess.run(
            ["vppctl", "-s", str(cli), *question.split()],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        for line in done.stdout.splitlines():
            fact = _vpp_fact(question, line)
            if fact:
                yield f"{question}: {fact}"


def _vpp_fact(question: str, line: str) -> str:
    """The lasting part of one line of a VPP listing."""
    if question == "show interface":  # name, index, state, MTUs; the rest are counters on lines of their own
        return " ".join(line.split()[:4]) if line[:1].strip() else ""
    if question == "show ip neighbors":  # the first column is the age
        return " ".join(line.split()[1:])
    return " ".join(word for word in line.split() if not word.startswith("last"))
