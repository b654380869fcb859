"""``nsm-identity``: the composition root, the only module of this room that knows what all daemons share."""

import sys
from collections.abc import Sequence

from nsm.identity.cli import Shell, run
from nsm.service import inventory
from nsm.service.logs import setup_logs


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; the exit status of the command."""
    return run(argv, Shell(lambda level: setup_logs(level, daemon="nsm-identity"), inventory.tell))


if __name__ == "__main__":
    sys.exit(main())
