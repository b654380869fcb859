"""``nsm-client``."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import structlog
from nsm.service.daemon import Daemon, open_node, run

from controlplane.client.client import Client
from controlplane.client.settings import ClientSettings
from nsm.service.config import ConfigError, load, load_settings


async def serve(settings: ClientSettings, daemon: Daemon, config: Path | None = None) -> None:
    """Connect everything, keep it so, close it at the end; SIGHUP reads the set of services again."""
    async with open_node(settings) as node:
        client = Client(settings, node)
        reload = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        try:
            await client.update(settings.network_services)
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(_ready(client, daemon), name="ready"),
                    tasks.create_task(_reloads(client, reload, config), name="reloads"),
                    tasks.create_task(client.failed(), name="sessions"),
                ]
                await daemon.stopping.wait()
                for helper in helpers:
                    helper.cancel()
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            await client.stop()


async def _ready(client: Client, daemon: Daemon) -> None:
    await client.connected()
    daemon.ready(connections=[session.wish.id for session in client.sessions])


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
