"""The mechanism of the endpoint's end: KERNEL in our namespace, or NOOP (reference §2.3). Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from controlplane.workload import check_interface_name, interface_name
from nsm.model.connection import Connection
from nsm.model.errors import NsmError, invalid
from nsm.model.mechanism import INODE_URL, INTERFACE_NAME, KERNEL, LOCAL, NOOP, PAYLOADS, Mechanism

_TYPES: Final = (KERNEL, NOOP)


def choose(connection: Connection, preferences: Sequence[Mechanism]) -> Mechanism:
    """The mechanism that was agreed on before, else the first one offered that we can do (trap 18).

    INVALID_ARGUMENT names the field that offers nothing we can do.
    """
    if connection.mechanism is not None and connection.mechanism.type:
        if not _possible(connection.mechanism):
            raise _unknown("connection.mechanism", (connection.mechanism,))
        return connection.mechanism
    for mechanism in preferences:
        if _possible(mechanism):
            return mechanism
    raise _unknown("mechanism_preferences", preferences)


def complete(
    mechanism: Mechanism, connection: Connection, stored: Connection | None, netns: str
) -> Mechanism:
    """The mechanism as answered: our namespace, and an interface name that stays over refreshes.

    ``netns`` is the namespace as ``file:///path``. INVALID_ARGUMENT for a name the kernel would refuse.
    """
    if mechanism.type != KERNEL:
        return mechanism
    name = mechanism.get(INTERFACE_NAME) or _former_name(stored) or interface_name(connection.network_service)
    try:
        check_interface_name(name)
    except ValueError as error:
        raise invalid(
            f"mechanism.parameters.{INTERFACE_NAME}", "an interface name of 1 to 15 bytes", name
        ) from error
    return mechanism.having(**{INODE_URL: netns, INTERFACE_NAME: name})


def with_payload(connection: Connection, ours: str) -> Connection:
    """The connection with a payload; INVALID_ARGUMENT for an unknown one."""
    if connection.payload and connection.payload not in PAYLOADS:
        raise invalid("connection.payload", " or ".join(PAYLOADS), connection.payload)
    return connection if connection.payload else replace(connection, payload=ours)


def _former_name(stored: Connection | None) -> str:
    mechanism = stored.mechanism if stored else None
    return mechanism.get(INTERFACE_NAME) if mechanism and mechanism.type == KERNEL else ""


def _possible(mechanism: Mechanism) -> bool:
    return mechanism.cls == LOCAL and mechanism.type in _TYPES


def _unknown(field: str, got: Sequence[Mechanism]) -> NsmError:
    offered = ", ".join(f"{mechanism.cls} {mechanism.type}" for mechanism in got) or "none"
    return invalid(field, " or ".join(f"{LOCAL} {kind}" for kind in _TYPES), offered)
