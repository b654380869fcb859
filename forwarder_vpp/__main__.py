"""``forwarder-vpp``."""

import sys

from forwarder_vpp.app import serve
from forwarder_vpp.settings import ForwarderSettings
from nsm.service.config import load_settings
from nsm.service.daemon import run


def main() -> int:
    """Run the forwarder until SIGTERM."""
    return run(load_settings(ForwarderSettings), serve)


if __name__ == "__main__":
    sys.exit(main())
