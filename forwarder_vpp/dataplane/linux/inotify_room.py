"""Room for hundreds of wireguard-go: each holds an inotify instance, and Linux allows a user 128 in all by default."""

from pathlib import Path
from typing import Final

import structlog

LIMIT: Final = Path("/proc/sys/fs/inotify/max_user_instances")
NEEDED: Final = 8192

_LOG: Final = structlog.get_logger(__name__)


def make(limit: Path = LIMIT, needed: int = NEEDED) -> None:
    """Raise the machine's limit to ``needed`` if it is lower; it stays, for the processes outlive the agent.

    Where that is not allowed, one warning: about a hundred tunnels will do.
    """
    try:
        allowed = int(limit.read_text())
        if allowed >= needed:
            return
        limit.write_text(f"{needed}\n")
    except (OSError, ValueError) as error:
        _LOG.warning("inotify.limit_kept", file=str(limit), reason=str(error))
        return
    _LOG.info("inotify.limit_raised", file=str(limit), before=allowed, now=needed)
