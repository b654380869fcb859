"""Two ends of a probe and the verdict: packets lost each way, RTT, longest silence (``probe.py`` is an end)."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from nsmctl.errors import LabError

_LAUNCHER: Final = Path(__file__).with_name("launch.py")
_PROBE: Final = Path(__file__).with_name("probe.py")
PORT: Final = 4242


@dataclass(frozen=True, slots=True)
class Flow:
    """One stream each way between two addresses (no prefix length) of the client's and the endpoint's end.

    ``client_netns``: the file of the client's namespace where it is not the one the probe runs in.
    """

    client: str
    endpoint: str
    port: int = PORT
    client_device: str = ""
    endpoint_device: str = ""
    client_netns: str = ""


@dataclass(frozen=True, slots=True)
class Direction:
    """One way of one flow, as its receiver saw it; times in milliseconds."""

    sent: int
    received: int
    duplicates: int
    silence_ms: float
    sending_s: float
    """Seconds from the first packet sent to the last; a sender without a processor falls behind its pace."""

    @property
    def rate(self) -> float:
        """Packets sent a second, 0 for fewer than two."""
        return (self.sent - 1) / self.sending_s if self.sending_s else 0.0

    @property
    def lost(self) -> int:
        """Packets sent and never received."""
        return self.sent - self.received


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both ways of one flow; RTT in microseconds at the client, ``None`` without a sample."""

    flow: Flow
    forward: Direction
    back: Direction
    rtt_p50_us: int | None
    rtt_p99_us: int | None

    @property
    def lost(self) -> int:
        """Packets lost, both ways together."""
        return self.forward.lost + self.back.lost

    def json(self) -> dict[str, Any]:
        """For ``--json``."""
        ways = {
            name: {**asdict(way), "lost": way.lost}
            for name, way in (("to_endpoint", self.forward), ("to_client", self.back))
        }
        return {**asdict(self.flow), **ways, "rtt_p50_us": self.rtt_p50_us, "rtt_p99_us": self.rtt_p99_us}


class Probes:
    """Probes that run between two namespaces; a context manager, so that no process stays behind.

    ``seconds=None`` runs until ``finish``. LabError when an end cannot start (an address that is not there).
    """

    def __init__(
        self,
        flows: Sequence[Flow],
        *,
        client: Path,
        endpoint: Path,
        rate: float = 1000.0,
        seconds: float | None = None,
    ) -> None:
        self.flows = tuple(flows)
        self._seconds = seconds
        clients = [_order(f.client, f.endpoint, f.port, f.client_device, f.client_netns) for f in flows]
        endpoints = [_order(f.endpoint, f.client, f.port, f.endpoint_device) for f in flows]
        self._ends = (
            _End(client, {"flows": clients, "rate": rate, "seconds": seconds}),
            _End(endpoint, {"flows": endpoints, "rate": rate, "seconds": seconds}),
        )

    def __enter__(self) -> Self:
        """Both ends listen, then both send."""
        try:
            for end in self._ends:
                end.expect("listening", timeout=20)
            for end in self._ends:
                end.say("go")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End both processes."""
        self._close()

    def snapshot(self) -> tuple[Verdict, ...]:
        """How it stands now; what is still under way counts as lost."""
        for end in self._ends:
            end.say("report")
        return self._verdicts("report", timeout=20)

    def finish(self) -> tuple[Verdict, ...]:
        """Wait for the end (``seconds``) or stop now (``None``), drain, judge."""
        if self._seconds is None:
            for end in self._ends:
                end.say("stop")
        return self._verdicts("done", timeout=(self._seconds or 0) + 60)

    def _verdicts(self, event: str, *, timeout: float) -> tuple[Verdict, ...]:
        client, endpoint = (end.expect(event, timeout=timeout)["flows"] for end in self._ends)
        return tuple(_judge(flow, c, e) for flow, c, e in zip(self.flows, client, endpoint, strict=True))

    def _close(self) -> None:
        for end in self._ends:
            end.close()


class _End:
    """One probe process, spoken to by lines."""

    def __init__(self, netns: Path, order: dict[str, Any]) -> None:
        script = [sys.executable, "-I", "-S", str(_PROBE)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCHER), str(netns), *script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._buffer = b""
        self.say(json.dumps(order))

    def say(self, line: str) -> None:
        """Send one line; an end that has gone is noticed by ``expect``."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return

    def expect(self, event: str, *, timeout: float) -> dict[str, Any]:
        """The next message, which must be ``event``."""
        message: dict[str, Any] = json.loads(self._line(time.monotonic() + timeout))
        if message.get("event") != event:
            raise LabError(f"the probe could not run: {message.get('reason', message.get('event'))}")
        return message

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(fd, 1 << 20) if ready else b""
            if not data:
                raise LabError("a probe ended early" if ready else "a probe did not answer in time")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def close(self) -> None:
        """End it, whatever it does."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _order(local: str, remote: str, port: int, device: str, netns: str = "") -> dict[str, Any]:
    return {"local": local, "remote": remote, "port": port, "device": device, "netns": netns}


def _judge(flow: Flow, client: dict[str, Any], endpoint: dict[str, Any]) -> Verdict:
    rtts = sorted(client["rtts_us"])
    return Verdict(
        flow,
        _way(client, endpoint),
        _way(endpoint, client),
        rtts[len(rtts) // 2] if rtts else None,
        rtts[min(len(rtts) - 1, len(rtts) * 99 // 100)] if rtts else None,
    )


def _way(sender: dict[str, Any], receiver: dict[str, Any]) -> Direction:
    return Direction(
        sender["sent"],
        receiver["received"],
        receiver["duplicates"],
        receiver["silence_ms"],
        sender["sending_s"],
    )
