"""From the wire logs of a mesh (``NSM_WIRE_LOG``) to a transcript that two runs write alike.

Where both ends of a hop are recorded, one exchange is told once, and what the ends saw differently is told too. The
order is that of the path, not of time: what runs at the same time comes now before, now after. What is made up anew
in each run (ids, inodes, keys, ports, times, random names) gets a number in the order of its first appearance.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

Line = Mapping[str, Any]

REQUEST: Final = "/networkservice.NetworkService/Request"
CLOSE: Final = "/networkservice.NetworkService/Close"
WATCHES: Final = "who watches whom"
"""The phase that tells of monitors, which are opened beside everything else; a Go hop opens one for each Request."""
_REGISTRY: Final = "/registry."
MONITOR: Final = "/connection.MonitorConnection/MonitorConnections"

_ORDER: Final = (
    "/registry.NetworkServiceRegistry/Register",
    "/registry.NetworkServiceEndpointRegistry/Register",
    "/registry.NetworkServiceEndpointRegistry/Unregister",
    REQUEST,
    CLOSE,
    "/registry.NetworkServiceRegistry/Find",
    "/registry.NetworkServiceEndpointRegistry/Find",
    MONITOR,
)
_PASSING: Final = ("timeout", "time", "call", "direction", "at", "peer", "method", "what")
"""Of a line what is either in the heading or another each time."""


@dataclass
class View:
    """One end's account of an exchange."""

    request: Line
    answers: list[Line] = field(default_factory=list)
    end: Line | None = None

    @property
    def caller(self) -> str:
        """The name of who asked."""
        return str(self.request["at"]) if self.request["direction"] == "out" else _name(self.request["peer"])

    @property
    def callee(self) -> str:
        """The name of who was asked."""
        return _name(self.request["peer"]) if self.request["direction"] == "out" else str(self.request["at"])

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The same at both ends."""
        return self.caller, self.callee, str(self.request["method"]), _text(self.request["message"])


def lines_of(logs: Iterable[Path]) -> list[Line]:
    """Every line, file by file; within a file in the order in which they were written."""
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


def views(lines: Iterable[Line]) -> list[View]:
    """Exchanges whose beginning is among the lines."""
    found: dict[tuple[str, int], View] = {}
    for line in lines:
        key = (line["at"], line["call"])
        if line["what"] == "request":
            found[key] = View(line)
        elif key in found and line["what"] == "answer":
            found[key].answers.append(line)
        elif key in found:
            found[key].end = line
    return list(found.values())


def is_about(view: View, name: str) -> bool:
    """Whether an exchange is about the endpoint ``name`` or its service, and no watch.

    Daemons renew their own registrations and watch the registry all the time, in whatever phase that falls.
    """
    if not view.request["method"].startswith(_REGISTRY):
        return True
    return not view.request["message"].get("watch") and f'"{name}' in _text(view.request["message"])


def transcript(
    phases: Mapping[str, Iterable[Line]], hops: tuple[str, ...], endpoint: str, fixed: Mapping[str, str]
) -> str:
    """What was said in each phase about ``endpoint``.

    ``hops``: names in the order of the path; ``fixed``: further patterns and names.
    """
    names = Names(fixed)
    parts: list[str] = []
    for title, lines in phases.items():
        parts.append(f"# {title}\n")
        pairs: defaultdict[tuple[str, ...], list[View]] = defaultdict(list)
        for view in views(lines):
            if is_about(view, endpoint) and (view.request["method"] == MONITOR) == (title == WATCHES):
                pairs[view.key].append(view)
        ordered = sorted(pairs, key=lambda key: _place(key, pairs[key][0], hops, names))
        parts += [names.normalised(_told(pairs[key])) for key in ordered]
    return "\n".join(parts)


def _place(key: tuple[str, ...], view: View, hops: tuple[str, ...], names: "Names") -> tuple[Any, ...]:
    caller, callee, method, _ = key
    index = _position(hops, caller)
    return (
        _ORDER.index(method) >= _ORDER.index(MONITOR),
        index,
        _ORDER.index(method),
        _position(hops, callee),
        (names.forgotten(_text(view.request["message"]))),
    )


def _position(hops: tuple[str, ...], name: str) -> int:
    return hops.index(name) if name in hops else len(hops)


def _told(both: list[View]) -> str:
    """One exchange, by the account of who asked if there is one."""
    outs = [view for view in both if view.request["direction"] == "out"]
    ins = [view for view in both if view.request["direction"] == "in"]
    view = max(outs or ins, key=lambda each: bool(each.answers))
    heading = f"## {view.caller} -> {view.callee}  {view.request['method'].removeprefix('/')}"
    count = max(len(outs), len(ins))
    told: dict[str, Any] = {"times": count} if count > 1 and view.request["method"] != MONITOR else {}
    told["request"] = _shown(view.request)
    if view.request["method"] == MONITOR:
        told["events"] = _events(view)
    else:
        told["answers"] = [_shown(answer) for answer in view.answers]
    told["end"] = _end(view)
    if outs and ins:
        told |= _differences(outs[0], ins[0])
    return f"{heading}\n{yaml.safe_dump(told, sort_keys=False, width=200, allow_unicode=True)}"


def _differences(out: View, into: View) -> dict[str, Any]:
    """What the callee says otherwise; of monitors, which one end leaves before the other, nothing."""
    if out.request["method"] == MONITOR:
        return {}
    pairs = [(out.request, into.request), *zip(out.answers, into.answers, strict=False)]
    found = [
        {"caller": _shown(ours), "callee": _shown(theirs)}
        for ours, theirs in pairs
        if _essence(ours) != _essence(theirs)
    ]
    return {"seen otherwise": found} if found else {}


def _essence(line: Line) -> Any:
    """Metadata apart, to which gRPC adds its own."""
    return {key: value for key, value in _shown(line).items() if key != "metadata"}


def _shown(line: Line) -> dict[str, Any]:
    shown = {key: value for key, value in line.items() if key not in _PASSING}
    shown["message"] = json.loads(_text(shown["message"]))  # maps come in any order
    metadata = {key: value for key, value in shown.pop("metadata", {}).items() if key != "user-agent"}
    if "path" in metadata:
        metadata["path"] = json.loads(metadata["path"])
    return {**({"metadata": dict(sorted(metadata.items()))} if metadata else {}), **shown}


def _end(view: View) -> str:
    """The status; a monitor goes on when the phase is over."""
    if view.end is None or view.request["method"] == MONITOR:
        return "stays open"
    return str(view.end["status"]) + (f": {view.end['reason']}" if "reason" in view.end else "")


def _events(view: View) -> list[str]:
    """A monitor's events by what changed: an update that tells no other state or path comes by chance of time."""
    found: list[str] = []
    last = ""
    for answer in view.answers:
        kind = answer["message"].get("type", "INITIAL_STATE_TRANSFER")
        state = _states(answer["message"].get("connections", {}))
        if kind != "UPDATE" or state != last:
            found.append(f"{kind}: {state or 'nothing'}")
        last = state
    return found


def _states(connections: Mapping[str, Any]) -> str:
    said = []
    for connection in connections.values():
        path = connection["path"]
        names = [segment["name"] for segment in path["path_segments"]]
        said.append(f"{connection.get('state', 'UP')} at {path.get('index', 0)} of {' '.join(names)}")
    return ", ".join(sorted(said))


class Names:
    """Stable names for what each run makes up."""

    PATTERNS: Final = (
        ("time", re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")),
        ("descriptor", re.compile(r"inode://\d+/\d+")),
        ("id", re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")),
        ("key", re.compile(r"[A-Za-z0-9+/]{43}=")),
    )
    ALL_ALIKE: Final = frozenset({"time"})

    def __init__(self, fixed: Mapping[str, str]) -> None:
        self._fixed = [(re.compile(pattern), name) for pattern, name in fixed.items()]
        self._known: defaultdict[str, dict[str, int]] = defaultdict(dict)

    def normalised(self, text: str) -> str:
        """The text with every made-up value named."""
        for pattern, name in self._fixed:
            text = pattern.sub(name, text)
        for kind, pattern in self.PATTERNS:
            text = pattern.sub(lambda found, kind=kind: self._name(kind, found[0]), text)  # type: ignore[misc]
        return text

    def forgotten(self, text: str) -> str:
        """The text as it sorts: every made-up value of a kind alike."""
        for pattern, name in self._fixed:
            text = pattern.sub(name, text)
        for kind, pattern in self.PATTERNS:
            text = pattern.sub(f"<{kind}>", text)
        return text

    def _name(self, kind: str, value: str) -> str:
        if kind in self.ALL_ALIKE:
            return f"<{kind}>"
        known = self._known[kind]
        return f"<{kind} {known.setdefault(value, len(known) + 1)}>"


def _name(spiffe_id: str) -> str:
    return spiffe_id.rpartition("/")[2]


def _text(message: Any) -> str:
    return json.dumps(message, sort_keys=True)
