"""``nsm-registry``."""

import sys

from controlplane.registry.app import serve
from controlplane.registry.settings import RegistrySettings
from nsm.service.config import load_settings
from nsm.service.daemon import run


def main() -> int:
    """Run the registry until SIGTERM."""
    return run(load_settings(RegistrySettings), serve)


if __name__ == "__main__":
    sys.exit(main())
