"""Expedited RCU grace periods while VPP makes or removes a ring: the kernel waits 1 ms instead of 35.

An opt-in of the whole machine (``/sys/kernel/rcu_expedited``), so it is on for the length of one ring operation
only and what was there before is put back by the last user: users hold a shared lock on a file that keeps the
old value. The locks of a process that dies go with it, and the next user puts the value right.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from forwarder_vpp.dataplane.last_user import alone, gate
from nsm.model.errors import Code, NsmError

_log = structlog.get_logger(__name__)

SWITCH = Path("/sys/kernel/rcu_expedited")
LOCK = Path("/run/nsm-rcu-expedited")


class Expedited:
    """``during()`` is the context of one ring operation. NsmError FAILED_PRECONDITION: we may not switch."""

    def __init__(self, switch: Path = SWITCH, lock: Path = LOCK) -> None:
        self._switch = switch
        self._lock = lock
        if not os.access(switch, os.W_OK):
            message = f"expedited grace periods were asked for, but {switch} cannot be written"
            raise NsmError(Code.FAILED_PRECONDITION, message, field="expedited")
        with self.during():
            """Puts right what a user that died left."""

    @contextlib.contextmanager
    def during(self) -> Iterator[None]:
        """On; afterwards as before, unless another user still needs it."""
        users = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with gate(self._lock):
                if alone(users) and not os.pread(users, 16, 0):
                    os.pwrite(users, self._switch.read_bytes(), 0)
                self._switch.write_text("1")
                fcntl.flock(users, fcntl.LOCK_SH)
            try:
                yield
            finally:
                with gate(self._lock):
                    if alone(users):
                        self._switch.write_bytes(os.pread(users, 16, 0))
                        os.ftruncate(users, 0)
                    fcntl.flock(users, fcntl.LOCK_UN)
        finally:
            os.close(users)


def expedited_if_possible() -> Expedited | None:
    """``None``, and one warning, where the machine does not let us: all goes on, only slower."""
    try:
        return Expedited()
    except (NsmError, OSError) as error:
        _log.warning("grace periods stay as they are", reason=str(error))
        return None
