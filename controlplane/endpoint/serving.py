"""An endpoint in operation: served on its socket and registered with its manager (reference §3.15, §5.4)."""

import glob
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from controlplane.endpoint.idle import Idle
from controlplane.endpoint.ipam import PointToPointIpam
from controlplane.endpoint.leases import LeaseFile, LeaseFileError
from controlplane.endpoint.policy_file import PolicyFile
from controlplane.endpoint.role import EndpointRole
from controlplane.endpoint.settings import EndpointSettings
from controlplane.workload import file_url
from nsm.model.connection import Connection, State
from nsm.model.endpoint import NetworkService, NetworkServiceEndpoint
from nsm.policy.rules import RegistryPolicies
from nsm.service.daemon import Node
from nsm.service.hop import HopServer
from nsm.service.registration import Registration
from nsm.service.registry import RegistryClient
from nsm.transport.server import Server

_SOCKET: Final = "listen.on"


class Endpoint:
    """One endpoint. ``start`` serves and registers it, ``stop`` ends both; also usable within another process.

    ``on_idle`` is called after ``NSM_IDLE_TIMEOUT`` without a connection.
    """

    def __init__(
        self, settings: EndpointSettings, node: Node, *, on_idle: Callable[[], None] = lambda: None
    ) -> None:
        """PolicyRouteError when the file of policy routes is broken."""
        self._settings = settings
        self._node = node
        self._idle = Idle(settings.idle_timeout, on_idle)
        self._role = EndpointRole(
            PointToPointIpam(settings.cidr_prefix, strict=settings.ipam_policy == "strict"),
            netns=file_url(settings.netns_file),
            payload=settings.payload,
            dns=settings.dns_configs,
            policies=PolicyFile(Path(settings.pbr_config_path)) if settings.pbr_config_path else None,
            leases=LeaseFile(Path(settings.lease_file)) if settings.lease_file else None,
            idle=self._idle,
        )
        self._hop = HopServer(
            settings.name, self._role, tokens=node.tokens, policies=node.policies, is_endpoint=True
        )
        self._registration: Registration | None = None
        self._stack = AsyncExitStack()

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Those it has now."""
        return self._hop.connections()

    async def start(self) -> tuple[str, ...]:
        """Serve, then register, however long that takes; the URLs it listens on."""
        self._adopt()
        self._stack.callback(self._role.stop)
        server = Server(self._node.identity)
        self._hop.serve(server)
        self._stack.push_async_callback(self._hop.stop)
        urls = await server.start(self._settings.listen_on or (self._private_socket(),))
        self._stack.push_async_callback(server.stop)
        await self._register(urls[0])
        self._idle.start()
        return urls

    async def stop(self) -> None:
        """End: unregistered if ``NSM_UNREGISTER_ITSELF`` says so, sockets and timers gone."""
        await self._stack.aclose()

    def _adopt(self) -> None:
        """Go on with the connections of before a restart: each can be watched, refreshed, closed, and expires.

        Whoever watches is asked for a refresh: our namespace may be another one now.
        """
        try:
            adopted = self._role.adopt()
        except LeaseFileError as error:  # the clients' refreshes bring them back
            structlog.get_logger().error("leases.unreadable", reason=str(error))
            return
        for connection, remaining in adopted:
            self._hop.adopt(connection, remaining)
            self._hop.publish(connection.id, lambda stored: replace(stored, state=State.REFRESH_REQUESTED))
        if adopted:
            structlog.get_logger().info("leases.adopted", count=len(adopted))

    def _private_socket(self) -> str:
        """A socket that only its descriptor leads to: the directory is ours alone and goes with us."""
        prefix = f"nsm-endpoint-{self._settings.name}-"
        _sweep(prefix)
        directory = tempfile.TemporaryDirectory(prefix=prefix)
        self._stack.callback(directory.cleanup)
        return f"unix://{directory.name}/{_SOCKET}"

    async def _register(self, url: str) -> None:
        settings = self._settings
        masks = settings.registry_client_policies
        policies = RegistryPolicies(self._node.verifier, masks) if masks else None
        client = RegistryClient(
            self._node.channels, settings.connect_to, policies=policies, timeout=settings.call_timeout
        )
        labels = {service: dict(settings.labels) for service in settings.service_names if settings.labels}
        endpoint = NetworkServiceEndpoint(
            name=settings.name,
            network_service_names=settings.service_names,
            network_service_labels=labels,
            url=url,
        )
        services = [NetworkService(name=name, payload=settings.payload) for name in settings.service_names]
        registration = Registration(client, endpoint, services if settings.register_service else ())
        self._stack.push_async_callback(registration.stop, unregister=settings.unregister_itself)
        await registration.start()


def _sweep(prefix: str) -> None:
    """Remove the directories of endpoints of our name that were killed: nobody listens on their sockets."""
    for directory in Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*"):
        if directory.stat().st_uid == os.getuid() and _is_deaf(directory / _SOCKET):
            shutil.rmtree(directory, ignore_errors=True)


def _is_deaf(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
