"""``nsm-manager``."""

import sys

from controlplane.manager.app import serve
from controlplane.manager.settings import ManagerSettings
from nsm.service.config import load_settings
from nsm.service.daemon import run


def main() -> int:
    """Run the manager until SIGTERM."""
    return run(load_settings(ManagerSettings), serve)


if __name__ == "__main__":
    sys.exit(main())
