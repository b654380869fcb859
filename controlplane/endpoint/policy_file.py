"""The policy routes of NSM_PBR_CONFIG_PATH as they are now: the file is read again when it has changed."""

import asyncio
from pathlib import Path

import structlog

from controlplane.endpoint.policy_routes import PolicyRouteError, load_policies
from nsm.model.context import PolicyRoute


class PolicyFile:
    """A file that may change, come and go while we run; a broken one leaves the former policies in force."""

    def __init__(self, path: Path) -> None:
        """PolicyRouteError if it is broken at the start."""
        self._path = path
        self._seen = self._stamp()
        self._policies = load_policies(path)

    async def policies(self) -> tuple[PolicyRoute, ...]:
        """The policies in force."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._policies = await asyncio.to_thread(load_policies, self._path)
            except PolicyRouteError as error:
                structlog.get_logger().error(
                    "policies.refused", reason=str(error), in_force=len(self._policies)
                )
            else:
                structlog.get_logger().info("policies.read", file=str(self._path), count=len(self._policies))
        return self._policies

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            facts = self._path.stat()
        except OSError:
            return None
        return facts.st_mtime_ns, facts.st_size, facts.st_ino
