"""``nsm-endpoint``."""

import sys

from controlplane.endpoint.policy_routes import PolicyRouteError
from controlplane.endpoint.serving import Endpoint
from controlplane.endpoint.settings import EndpointSettings
from controlplane.workload import completed
from nsm.service.config import ConfigError, load_settings
from nsm.service.daemon import Daemon, open_node, run


async def serve(settings: EndpointSettings, daemon: Daemon) -> None:
    """Serve until told to stop, or idle for long enough; ``ready`` is logged once registered."""
    async with open_node(settings) as node:
        try:
            endpoint = Endpoint(settings, node, on_idle=daemon.stopping.set)
        except PolicyRouteError as error:
            raise ConfigError(f"NSM_PBR_CONFIG_PATH: {error}") from error
        try:
            urls = await endpoint.start()
            facts = {"services": settings.service_names, "listen_on": urls, "netns": settings.netns}
            daemon.ready(name=settings.name, **facts)
            await daemon.stopping.wait()
        finally:
            await completed(endpoint.stop())


def main() -> int:
    """Run the endpoint until SIGTERM."""
    return run(load_settings(EndpointSettings), serve)


if __name__ == "__main__":
    sys.exit(main())
