"""The composition of ``nsm-registry``."""

from pathlib import Path

from controlplane.registry.catalogue import Catalogue
from controlplane.registry.server import RegistryServer, registry_policies
from controlplane.registry.settings import MEMORY, RegistrySettings
from controlplane.registry.store import MemoryStore, SqliteStore, Store
from nsm.service.daemon import Daemon, open_node
from nsm.transport.server import Server


async def serve(settings: RegistrySettings, daemon: Daemon) -> None:
    """Serve until the daemon is asked to stop; entries stay in the store."""
    async with open_node(settings) as node:
        services, endpoints = registry_policies(node.verifier, settings.registry_server_policies)
        store = await _open_store(settings.store)
        catalogue = Catalogue(store, services=services, endpoints=endpoints, lifetime=settings.expire_period)
        server = Server(node.identity)
        front = RegistryServer(
            catalogue, tokens=node.tokens, verifier=node.verifier, services=services, endpoints=endpoints
        )
        front.serve(server)
        try:
            await catalogue.restore()
            urls = await server.start(settings.listen_on)
            daemon.ready(urls=urls, store=settings.store, **catalogue.sizes)
            await daemon.stopping.wait()
        finally:
            server.set_serving(False)
            await server.stop()
            await catalogue.close()


async def _open_store(place: str) -> Store:
    return MemoryStore() if place == MEMORY else await SqliteStore.open(Path(place))
