"""The life of one connection against a manager that does what the test says."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from controlplane.client import session as module
from controlplane.client.session import ClientSession, Phase
from controlplane.client.wish import Wish
from nsm.model.connection import Connection, State
from nsm.model.context import ConnectionContext, IpContext
from nsm.model.errors import ENDPOINT_FIELD, Code, NsmError
from nsm.model.mechanism import KERNEL, LOCAL, VXLAN, Mechanism
from nsm.model.path import Path, PathSegment
from nsm.session.heal import LOOK_EVERY

WISH = Wish("nsc", "nsc-0", "icmp-responder", "nsm-1", "file:///run/netns/blue", labels={"app": "db"})
HOUR = 3600 * 10**9


def answered(asked: Connection, *, lifetime: int = HOUR, src: str = "10.0.0.1/32") -> Connection:
    """What a manager answers: a path of two, an address, its own descriptor of the namespace."""
    segments = (asked.route.segments[0], PathSegment("nsmgr", "m-1", expires=time.time_ns() + lifetime))
    return replace(
        asked,
        mechanism=Mechanism(LOCAL, KERNEL, {"inodeURL": "file:///proc/self/fd/9", "name": "nsm-1"}),
        network_service_endpoint_name="nse-1",
        path=Path(0, segments),
        context=ConnectionContext(
            ip_context=IpContext(src_ip_addrs=(src,), excluded_prefixes=asked.ip.excluded_prefixes)
        ),
        state=State.UP,
    )


class FakeManager:
    """Answers with ``answers`` in turn, the last one for ever; keeps what it was asked."""

    def __init__(self, *answers: Callable[[Connection], Connection | Awaitable[Connection]]) -> None:
        self.answers = list(answers) or [answered]
        self.requests: list[Connection] = []
        self.closed: list[Connection] = []
        self.known: Connection | None = None
        self.forgotten: list[str] = []
        self.others: list[bool] = []
        self.arrived = asyncio.Condition()

    async def find(self, wish: Wish) -> Connection | None:
        return self.known

    async def request(self, wish: Wish, connection: Connection, *, deadline: float) -> Connection:
        self.requests.append(connection)
        async with self.arrived:
            self.arrived.notify_all()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        result = answer(connection)
        return result if isinstance(result, Connection) else await result

    async def close(self, wish: Wish, connection: Connection, *, deadline: float) -> None:
        self.closed.append(connection)

    async def has_another(self, connection: Connection) -> bool:
        return self.others.pop(0)

    def forget(self, connection_id: str) -> None:
        self.forgotten.append(connection_id)

    async def asked(self, count: int) -> None:
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)


def refusing(code: Code = Code.UNAVAILABLE, field: str = "") -> Callable[[Connection], Connection]:
    def refuse(connection: Connection) -> Connection:
        raise NsmError(code, "not now", field=field)

    return refuse


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_DELAY", 0.001)
    monkeypatch.setattr(module, "STOP_GRACE", 0.05)


async def test_the_first_request_is_a_path_of_one_with_our_namespace() -> None:
    manager = FakeManager()
    session = ClientSession(WISH, manager)
    session.start()
    connection = await session.connected()
    asked = manager.requests[0]
    assert asked.id == "nsc-0"
    assert asked.route == Path(0, (PathSegment("nsc", "nsc-0"),))
    assert (asked.network_service, dict(asked.labels), asked.mechanism) == (
        "icmp-responder",
        {"app": "db"},
        None,
    )
    assert WISH.preferences == (
        Mechanism(LOCAL, KERNEL, {"inodeURL": "file:///run/netns/blue", "name": "nsm-1"}),
    )
    assert connection.mechanism is not None
    assert connection.mechanism.get("inodeURL") == "file:///run/netns/blue"  # ours, not the descriptor we got
    await session.close()
    assert manager.closed == [connection]
    assert manager.forgotten == ["nsc-0"]
    assert (session.phase, session.connection) == (Phase.CLOSED, None)


async def test_it_asks_until_it_succeeds() -> None:
    manager = FakeManager(refusing(), refusing(), refusing(Code.NOT_FOUND), answered)
    session = ClientSession(WISH, manager)
    session.start()
    await session.connected()
    assert len(manager.requests) == 4
    await session.close()


async def test_a_refresh_is_the_last_answer_again_and_a_failed_one_keeps_the_connection() -> None:
    short = [lambda asked: answered(asked, lifetime=10**6)]
    manager = FakeManager(*short, refusing(), refusing(), answered)
    phases: list[Phase] = []
    session = ClientSession(WISH, manager, on_change=lambda one: phases.append(one.phase))
    session.start()
    first = await session.connected()
    await manager.asked(4)
    refresh = manager.requests[1]
    assert (refresh.route.segments, refresh.mechanism) == (first.route.segments, first.mechanism)
    assert manager.requests[3] == manager.requests[2] == refresh
    assert manager.closed == []
    await session.close()
    assert phases == [Phase.UP, Phase.HEALING, Phase.UP, Phase.CLOSED]


async def test_down_without_a_liveness_check_means_another_endpoint() -> None:
    manager = FakeManager()
    session = ClientSession(WISH, manager)
    session.start()
    first = await session.connected()
    session.news(replace(first, state=State.DOWN))
    await manager.asked(2)
    again = manager.requests[1]
    assert manager.closed == [first]
    assert again.state == State.RESELECT_REQUESTED
    assert (again.mechanism, again.network_service_endpoint_name) == (None, "")
    assert (again.context, again.path) == (first.context, first.path)
    await session.close()


async def test_a_failing_reselect_closes_once_and_stays_a_reselect() -> None:
    manager = FakeManager(answered, refusing(), refusing(), answered)
    session = ClientSession(WISH, manager)
    session.start()
    first = await session.connected()
    session.news(replace(first, state=State.DOWN))
    await manager.asked(4)
    assert manager.closed == [first]
    assert [asked.state for asked in manager.requests[1:]] == [State.RESELECT_REQUESTED] * 3
    await session.close()


class Pulse:
    """A data path that is as the test says."""

    def __init__(self) -> None:
        self.silent = asyncio.Event()

    async def alive(self, connection: Connection) -> bool:
        return not self.silent.is_set()

    async def failed(self, current: Callable[[], Connection]) -> None:
        await self.silent.wait()


@pytest.mark.parametrize("lost", [True, False])
async def test_a_lost_control_plane_over_a_living_data_path_is_asked_again(lost: bool) -> None:
    manager = FakeManager()
    session = ClientSession(WISH, manager, liveness=Pulse())
    session.start()
    first = await session.connected()
    session.news(replace(first, state=State.DOWN), lost=lost)
    await manager.asked(2)
    assert manager.requests[1] == first
    assert manager.closed == []
    await session.close()


async def down_while_packets_flow(manager: FakeManager) -> ClientSession:
    """A session whose endpoint has died, and whose refreshes are answered as the manager's next answers say."""
    session = ClientSession(WISH, manager, liveness=Pulse())
    session.start()
    first = await session.connected()
    session.news(replace(first, state=State.DOWN))
    return session


async def test_an_endpoint_that_is_gone_is_left_for_another_one_as_soon_as_there_is_one() -> None:
    gone = refusing(field=ENDPOINT_FIELD)
    manager = FakeManager(answered, *[gone] * (1 + LOOK_EVERY), answered)
    manager.others = [False, True]
    session = await down_while_packets_flow(manager)
    await manager.asked(3 + LOOK_EVERY)
    plain, last = manager.requests[1:-1], manager.requests[-1]
    assert {asked.state for asked in plain} == {State.UP}
    assert last.state is State.RESELECT_REQUESTED
    assert [one.id for one in manager.closed] == ["nsc-0"]
    assert manager.others == []
    await session.close()


async def test_an_endpoint_that_is_not_registered_is_waited_for_before_another_one_is_looked_for() -> None:
    unknown = refusing(Code.NOT_FOUND, ENDPOINT_FIELD)
    manager = FakeManager(answered, *[unknown] * LOOK_EVERY, answered)
    manager.others = [True]
    session = await down_while_packets_flow(manager)
    await manager.asked(2 + LOOK_EVERY)
    assert [asked.state for asked in manager.requests[1:]] == [
        *[State.UP] * LOOK_EVERY,
        State.RESELECT_REQUESTED,
    ]
    await session.close()


async def test_a_hop_that_is_away_is_no_reason_to_leave_the_endpoint() -> None:
    manager = FakeManager(answered, *[refusing()] * (2 * LOOK_EVERY), answered)
    session = await down_while_packets_flow(manager)
    await manager.asked(2 + 2 * LOOK_EVERY)
    assert manager.closed == []
    assert {asked.state for asked in manager.requests[1:]} == {State.UP}
    await session.close()


async def test_a_silent_data_path_means_another_endpoint() -> None:
    manager = FakeManager()
    pulse = Pulse()
    session = ClientSession(WISH, manager, liveness=pulse)
    session.start()
    first = await session.connected()
    pulse.silent.set()
    await manager.asked(2)
    assert manager.closed[0] == first
    assert manager.requests[1].state == State.RESELECT_REQUESTED
    await session.close()


async def test_a_requested_refresh_is_a_plain_request() -> None:
    manager = FakeManager()
    session = ClientSession(WISH, manager)
    session.start()
    first = await session.connected()
    session.news(replace(first, state=State.REFRESH_REQUESTED))
    await manager.asked(2)
    assert manager.requests[1] == first
    await session.close()


async def test_new_facts_from_the_manager_are_taken_over() -> None:
    manager = FakeManager()
    changes: list[ClientSession] = []
    session = ClientSession(WISH, manager, on_change=changes.append)
    session.start()
    first = await session.connected()
    context = replace(first.ctx, mtu=1400)
    session.news(replace(first, context=context))
    session.news(replace(first, context=context))
    assert session.connection is not None
    assert session.connection.ctx.mtu == 1400
    assert len(changes) == 2
    await session.close()


async def test_an_address_of_another_connection_is_closed_and_excluded() -> None:
    taken: list[str] = []

    def colliding(asked: Connection) -> Connection:
        taken.append("10.0.0.1/32")  # another connection of ours got it while we were asking
        return answered(asked)

    manager = FakeManager(colliding, lambda asked: answered(asked, src="10.0.0.3/32"))
    session = ClientSession(WISH, manager, occupied=lambda: tuple(taken))
    session.start()
    connection = await session.connected()
    assert connection.ip.src_ip_addrs == ("10.0.0.3/32",)
    assert [one.ip.src_ip_addrs for one in manager.closed] == [("10.0.0.1/32",)]
    assert manager.requests[1].ip.excluded_prefixes == ("10.0.0.1/32",)
    await session.close()


async def test_a_connection_of_before_our_start_is_adopted() -> None:
    manager = FakeManager()
    old = answered(WISH.first())
    manager.known = replace(old, id="m-1", path=replace(old.route, index=1), state=State.DOWN)
    session = ClientSession(WISH, manager)
    session.start()
    await session.connected()
    asked = manager.requests[0]
    assert (asked.id, asked.route.index, asked.route.segments) == ("nsc-0", 0, old.route.segments)
    assert asked.state == State.UP
    assert asked.mechanism == WISH.preferences[0]
    assert manager.closed == []
    await session.close()


@pytest.mark.parametrize(
    "change",
    [
        {"network_service": "other"},
        {"mechanism": Mechanism(LOCAL, KERNEL, {"name": "nsm-9"})},
        {"mechanism": Mechanism(LOCAL, VXLAN)},
    ],
)
async def test_a_left_over_of_another_service_is_closed_first(change: dict[str, object]) -> None:
    manager = FakeManager()
    left = manager.known = replace(answered(WISH.first()), **change)  # type: ignore[arg-type]
    session = ClientSession(WISH, manager)
    session.start()
    await session.connected()
    assert manager.closed == [left]
    assert manager.requests[0] == WISH.first()
    await session.close()


async def test_a_first_request_under_way_is_waited_for_and_its_answer_closed() -> None:
    gate = asyncio.Event()

    async def slow(asked: Connection) -> Connection:
        await gate.wait()
        return answered(asked)

    manager = FakeManager(slow)
    session = ClientSession(WISH, manager)
    session.start()
    await manager.asked(1)
    closing = asyncio.create_task(session.close())
    await asyncio.sleep(0)
    gate.set()
    await closing
    assert [one.network_service_endpoint_name for one in manager.closed] == ["nse-1"]
    assert len(manager.requests) == 1
    with pytest.raises(NsmError):
        await session.connected()


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_first_request_that_hangs_is_cancelled_and_what_it_left_is_closed(is_known: bool) -> None:
    async def never(asked: Connection) -> Connection:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    manager = FakeManager(never)
    session = ClientSession(WISH, manager)
    session.start()
    await manager.asked(1)
    left = answered(WISH.first())
    manager.known = left if is_known else None
    await session.close()
    assert manager.closed == ([left] if is_known else [])


class Away(FakeManager):
    """Fails the first Closes with ``failures``."""

    def __init__(self, *failures: Code) -> None:
        super().__init__()
        self.failures = list(failures)

    async def close(self, wish: Wish, connection: Connection, *, deadline: float) -> None:
        self.closed.append(connection)
        if self.failures:
            raise NsmError(self.failures.pop(0), "not now")


async def closed(manager: Away, patience: float = 30.0) -> list[MutableMapping[str, Any]]:
    """What the log says of the end of a session that was up."""
    session = ClientSession(WISH, manager, close_patience=patience)
    session.start()
    await session.connected()
    with capture_logs() as logs:
        await session.close()
    assert session.phase is Phase.CLOSED
    return [entry for entry in logs if entry["log_level"] == "warning"]


async def test_a_manager_that_is_away_at_the_end_is_waited_for() -> None:
    manager = Away(Code.UNAVAILABLE, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
    said = await closed(manager)
    assert len(manager.closed) == 4
    assert [(entry["event"], entry["reason"].partition(":")[0]) for entry in said] == [
        ("close.waiting", "UNAVAILABLE"),
        ("close.waiting", "DEADLINE_EXCEEDED"),
    ]


async def test_what_could_not_be_closed_is_told_with_the_time_it_ends_by_itself() -> None:
    manager = Away(*[Code.UNAVAILABLE] * 10_000)
    before = datetime.now(UTC)
    said = await closed(manager, patience=0.1)
    assert [entry["event"] for entry in said] == ["close.waiting", "close.failed"]
    ends = datetime.fromisoformat(said[-1]["ends_by_itself"]) - before
    assert HOUR / 2e9 < ends.total_seconds() < HOUR / 1e9 + 60
    assert len(manager.closed) > 1


async def test_who_never_reached_a_manager_ends_at_once() -> None:
    class Nowhere(FakeManager):
        async def find(self, wish: Wish) -> Connection | None:
            async with self.arrived:
                self.requests.append(wish.first())
                self.arrived.notify_all()
            raise NsmError(Code.UNAVAILABLE, "no such file")

    manager = Nowhere()
    session = ClientSession(WISH, manager, close_patience=3600.0)
    session.start()
    await manager.asked(2)
    asked = len(manager.requests)
    await asyncio.wait_for(session.close(), 30)
    assert (session.phase, manager.closed) == (Phase.CLOSED, [])
    assert len(manager.requests) <= asked + 1


async def test_a_close_that_is_refused_is_not_tried_again() -> None:
    manager = Away(Code.PERMISSION_DENIED)
    assert [entry["event"] for entry in await closed(manager)] == ["close.failed"]
    assert len(manager.closed) == 1


async def test_a_mechanism_we_did_not_offer_is_refused_and_closed() -> None:
    def foreign(asked: Connection) -> Connection:
        return replace(answered(asked), mechanism=Mechanism(LOCAL, VXLAN))

    manager = FakeManager(foreign, answered)
    session = ClientSession(WISH, manager)
    session.start()
    await session.connected()
    assert len(manager.closed) == 1
    await session.close()
