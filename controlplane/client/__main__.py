"""``nsm-client``."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import structlog

from controlplane.client.client import Client
from controlplane.client.settings import ClientSettings
from controlplane.workload import completed
from nsm.service.config import ConfigError, load, load_settings
from nsm.service.daemon import Daemon, open_node, run


async def serve(settings: ClientSettings, daemon: Daemon, config: Path | None = None) -> None:
    """Connect everything, keep it so, close it at the end; SIGHUP reads the set of services again."""
    async with open_node(settings) as node:
        client = Client(settings, node)
        reload = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
        try:
            await client.update(settings.network_services)
            daemon.guard("sessions", client.failed())
            daemon.guard("reloads", _reloads(client, reload, config))
            await client.connected()
            daemon.ready(name=settings.name, connections=[session.wish.id for session in client.sessions])
            await daemon.stopping.wait()
        finally:
            await completed(client.stop())


async def _reloads(client: Client, reload: asyncio.Event, config: Path | None) -> None:
    """One SIGHUP after the other; a file that is wrong changes nothing."""
    log = structlog.get_logger()
    while await reload.wait():
        reload.clear()
        try:
            settings = await asyncio.to_thread(load, ClientSettings, config)
        except ConfigError as error:
            log.warning("reload.refused", file=str(config), reason=str(error))
            continue
        added, removed = await client.update(settings.network_services)
        log.info("reloaded", file=str(config), added=added, removed=removed)


def _config() -> Path | None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", type=Path)
    chosen: Path | None = parser.parse_known_args()[0].config
    return chosen


def main() -> int:
    """Exit status 0 after a clean end, 2 for bad settings."""
    settings = load_settings(ClientSettings)
    config = _config()

    async def with_config(settings: ClientSettings, daemon: Daemon) -> None:
        await serve(settings, daemon, config)

    return run(settings, with_config)


if __name__ == "__main__":
    sys.exit(main())
