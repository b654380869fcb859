"""Expedited RCU grace periods: rings come and go in a third of the time, at the price of interrupting every core."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

SWITCH: Final = Path("/sys/kernel/rcu_expedited")
_LOG: Final = structlog.get_logger(__name__)


@contextmanager
def expedited(memory: Path, switch: Path = SWITCH) -> Iterator[None]:
    """On inside, as before afterwards. ``memory`` keeps what was before, should we be killed in between.

    Where it cannot be switched, that is logged and all goes on without.
    """
    try:
        before = memory.read_text() if memory.exists() else switch.read_text()
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(before)
        switch.write_text("1")
    except OSError as error:
        _LOG.warning("expedited.unavailable", reason=str(error))
        memory.unlink(missing_ok=True)
        yield
        return
    _LOG.info("expedited.on", before=before.strip())
    try:
        yield
    finally:
        switch.write_text(before)
        memory.unlink(missing_ok=True)
