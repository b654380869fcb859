"""``nsm-endpoint``."""

import asyncio
import sys

from nsm.service.daemon import Daemon, open_node, run

from controlplane.endpoint.policy_routes import PolicyRouteError
from controlplane.endpoint.serving import Endpoint
from controlplane.endpoint.settings import EndpointSettings
from nsm.service.config import load_settings


async def serve(settings: EndpointSettings, daemon: Daemon) -> None:
    """Serve until told to stop, or idle for long enough; ``ready`` is logged once registered."""
    async with open_node(settings) as node:
        endpoint = Endpoint(settings, node, on_idle=daemon.stopping.set)
        starting = asyncio.create_task(endpoint.start(), name="start")
        stopping = asyncio.create_task(daemon.stopping.wait(), name="stopping")
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                urls = starting.result()
                facts = {"services": settings.service_names, "listen_on": urls, "netns": settings.netns}
                daemon.ready(name=settings.name, **facts)
                await stopping
        finally:
            starting.cancel()
            stopping.cancel()
            await asyncio.wait({starting, stopping})
            await endpoint.stop()


def main() -> int:
    """Exit status 0 after a clean end, 2 for bad settings."""
    settings = load_settings(EndpointSettings)
    try:
        return run(settings, serve)
    except PolicyRouteError as error:
        sys.stderr.write(f"NSM_PBR_CONFIG_PATH: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
