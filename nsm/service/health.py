"""``python -m nsm.service.health``: whether the daemon of this environment serves, for containers and scripts.

It reads the daemon's own variables: where it listens (``NSM_LISTEN_ON``; its unix socket if it has one) and who we are
(``NSM_NAME`` with ``NSM_IDENTITY_DIR``, or ``SPIFFE_ENDPOINT_SOCKET``), and asks gRPC's health service over mutual TLS.
Exit status 0 when it serves; 1 with the reason on stderr when it does not, or does not answer in time.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import ClassVar, Final

from pydantic import Field

from nsm.model.errors import NsmError
from nsm.service.config import ListenUrls, NsmSettings, load_settings
from nsm.service.daemon import open_node
from nsm.service.logs import setup_logs
from nsm.transport.health import health

PATIENCE: Final = 4.0
"""Seconds for identity, connection and answer together."""

SERVING: Final = "SERVING"


class HealthSettings(NsmSettings):
    """Which daemon to ask."""

    summary: ClassVar[str] = "Asks a daemon of this host whether it serves."

    name: str = Field(default="forwarder", description="name of the daemon")
    dial_timeout: float = PATIENCE
    listen_on: ListenUrls = Field(
        default=("unix:///listen.on.socket",), description="where the daemon listens"
    )


async def check(settings: HealthSettings) -> str:
    """The daemon's status. NsmError when it cannot be asked, TimeoutError after ``PATIENCE`` seconds."""
    async with asyncio.timeout(PATIENCE), open_node(settings) as node:
        return await health(node.channels.get(target(settings.listen_on)), timeout=PATIENCE)


def target(urls: Sequence[str]) -> str:
    """The one to ask of the URLs a daemon listens on: its unix socket, else its port on this host."""
    unix = next((url for url in urls if url.startswith("unix:")), None)
    if unix is not None:
        return unix
    host, _, port = urls[0].removeprefix("tcp://").rpartition(":")
    anywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - looked for, not bound
    return f"tcp://{anywhere.get(host, host)}:{port}"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    settings = load_settings(HealthSettings, argv)
    setup_logs("ERROR", daemon=settings.name)
    try:
        status = asyncio.run(check(settings))
    except (NsmError, TimeoutError) as error:
        sys.stderr.write(f"{settings.name}: {str(error) or f'no answer within {PATIENCE:g} s'}\n")
        return 1
    if status != SERVING:
        sys.stderr.write(f"{settings.name}: {status}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
