"""The client of the benchmarks: what it could not close is there for another try."""

from pathlib import Path
from typing import cast

from controlplane.client.manager import NsmManager
from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from perf.control.driver import Driver


class ManagerThatFailsOnce:
    """Closes at the second try."""

    def __init__(self) -> None:
        self.tries: list[str] = []
        self.forgotten: list[str] = []

    async def close(self, wish: object, connection: Connection, *, deadline: float) -> None:
        self.tries.append(connection.id)
        if len(self.tries) == 1:
            raise NsmError(Code.UNKNOWN, "failed to send a file")

    def forget(self, connection_id: str) -> None:
        self.forgotten.append(connection_id)


async def test_a_close_that_failed_can_be_asked_once_more() -> None:
    manager = ManagerThatFailsOnce()
    driver = Driver([("client", cast(NsmManager, manager))], "service", Path("/proc/self/ns/net"))
    driver.connections[7] = Connection(id="client-7")
    (failed,) = await driver.close_all()
    assert "failed to send a file" in failed.error
    assert manager.forgotten == []
    (closed,) = await driver.at_once(driver.close, [failed.number])
    assert closed.error == ""
    assert manager.tries == ["client-7"] * 2
    assert manager.forgotten == ["client-7"]
    assert driver.connections == {}
