"""A client of any mesh, ours or of Go components: in a namespace of its own for as long as a command needs it."""

import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from nsmctl.lab import namespaces
from nsmctl.lab.processes import spawn, stop
from nsmctl.lab.ready import wait_event
from nsmctl.lab.topology import mark
from nsmctl.lab.world import GRACE_S, READY_S, connected

PROGRAM: Final = Path(sys.executable).with_name("nsm-client")


@dataclass(frozen=True, slots=True)
class Guest:
    """A client that is connected; ``connections`` are its ``connected`` events."""

    space: Path
    connections: tuple[dict[str, Any], ...]


@contextmanager
def joined(
    manager: str, socket: str, name: str, urls: Sequence[str], env: Mapping[str, str]
) -> Iterator[Guest]:
    """Connect to ``urls`` through a manager, known to it by ``socket``; closed, and nothing left, when the block ends.

    SIGTERM ends the block as well. LabError with the end of the client's log when it does not get connected.
    """
    space = f"nsmctl-{name}"
    previous = signal.signal(signal.SIGTERM, _end)
    namespaces.create(space)
    try:
        with tempfile.TemporaryDirectory(prefix="nsmctl-") as folder:
            settings = {
                "NSM_NAME": name,
                "NSM_CONNECT_TO": manager,
                "NSM_NETWORK_SERVICES": ",".join(urls),
                "NSM_LOG_FORMAT": "json",
                **({"SPIFFE_ENDPOINT_SOCKET": socket} if socket else {}),
                **env,
            }
            process = spawn(
                name,
                (str(PROGRAM),),
                netns=namespaces.path_of(space),
                log=Path(folder) / "client.log",
                env=settings,
                mark=mark(space),
            )
            try:
                wait_event(process, "ready", timeout=READY_S)
                found = tuple(connected(process, f"{name}-{index}") for index in range(len(urls)))
                yield Guest(namespaces.path_of(space), found)
            finally:
                stop([process], grace=GRACE_S)
    finally:
        namespaces.delete(space)
        signal.signal(signal.SIGTERM, previous)


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
