"""The record of a running lab, a JSON file, so that every command and the next run find what was started."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from nsmctl.errors import LabError
from nsmctl.lab.processes import Process
from nsmctl.lab.topology import RUN, Topology

_FILE: Final = "lab.json"


@dataclass(frozen=True, slots=True)
class Workload:
    """A client or an endpoint in a namespace of its own; ``services`` as given on the command line."""

    name: str
    role: str
    node: str
    space: str
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """What runs: processes by name (``n1/manager``), workloads by name."""

    topology: Topology
    processes: dict[str, Process] = field(default_factory=dict)
    workloads: dict[str, Workload] = field(default_factory=dict)

    def with_process(self, process: Process) -> "State":
        """With one process more, or another one under its name."""
        return replace(self, processes={**self.processes, process.name: process})

    def without_processes(self, *names: str) -> "State":
        """Without these."""
        return replace(self, processes={k: v for k, v in self.processes.items() if k not in names})

    def with_workload(self, workload: Workload) -> "State":
        """With one workload more."""
        return replace(self, workloads={**self.workloads, workload.name: workload})

    def without_workload(self, name: str) -> "State":
        """Without that one."""
        return replace(self, workloads={k: v for k, v in self.workloads.items() if k != name})


def save(state: State) -> None:
    """Write the record; whole or not at all."""
    directory = state.topology.directory
    directory.mkdir(parents=True, exist_ok=True)
    new = directory / f"{_FILE}.{os.getpid()}"
    new.write_text(json.dumps(asdict(state), indent=1))
    new.replace(directory / _FILE)


def load(name: str) -> State:
    """The record of the lab of that name; LabError if there is no such lab."""
    state = find(name)
    if state is None:
        raise LabError(f"no lab {name!r} is up", hint="start one with: nsmctl lab up")
    return state


def find(name: str) -> State | None:
    """The record, ``None`` without a lab."""
    try:
        data = json.loads((RUN / name / _FILE).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LabError(f"{RUN / name / _FILE} is damaged: {error}", hint="run nsmctl lab down") from error
    workloads = {
        key: Workload(**{**value, "services": tuple(value["services"])})
        for key, value in data["workloads"].items()
    }
    processes = {key: Process(**value) for key, value in data["processes"].items()}
    return State(Topology(**data["topology"]), processes, workloads)


def names() -> tuple[str, ...]:
    """Every lab with a record."""
    return tuple(sorted(file.parent.name for file in Path(RUN).glob(f"*/{_FILE}")))
