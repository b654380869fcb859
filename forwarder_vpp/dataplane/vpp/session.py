"""The agent's session with VPP: connects, checks what VPP speaks, calls, dumps, reconnects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import structlog

from forwarder_vpp.dataplane.contract.vpp import Call, DetailsT, Dump, ReplyT, Undo
from nsm.model.errors import Code, NsmError

from .codec import spec_of
from .errors import VppError, unavailable
from .link import Counters, Link
from .messages.core import ControlPing, ControlPingReply, ShowVersion, ShowVersionReply
from .ring_turns import RingTurns
from .table import mismatches

EventT = TypeVar("EventT")
_Posted = tuple[Call[Any], "asyncio.Future[Any]"]

_log = structlog.get_logger(__name__)

_NO_TURN = contextlib.nullcontext()
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0


class VppSession:
    """Implements the contract ``Vpp`` over one VPP's API socket.

    ``path`` is the socket; ``timeout`` the seconds any one message may take; ``around_rings`` is entered for
    the length of each ring operation. After ``start`` the session
    connects again by itself whenever VPP comes back; each connection has an epoch of its own.
    """

    def __init__(
        self,
        path: str,
        *,
        name: str = "forwarder-vpp",
        timeout: float = 5.0,
        around_rings: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.path = path
        self.timeout = timeout
        self.counters = Counters()
        self.version = ""
        self.vpp_pid = 0
        self._name = name
        self._around_rings = around_rings
        self._epoch = 0
        self._link: Link | None = None
        self._lost = asyncio.Event()
        self._ring_turns = RingTurns()
        self._keeper: asyncio.Task[None] | None = None
        self._wants: list[Call[Any]] = []
        self._handlers: dict[type[Any], list[Callable[[Any], None]]] = {}
        self._on_up: list[Callable[[int], None]] = []
        self._on_down: list[Callable[[], None]] = []

    # life

    @property
    def epoch(self) -> int:
        """How many times the session has connected."""
        return self._epoch

    @property
    def connected(self) -> bool:
        """Whether VPP answers at this moment, as far as the socket tells."""
        return self._link is not None

    def on_up(self, callback: Callable[[int], None]) -> None:
        """Call ``callback(epoch)`` after every connect from now on."""
        self._on_up.append(callback)

    def on_down(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` whenever the connection is lost."""
        self._on_down.append(callback)

    async def connect(self) -> None:
        """Connect once. NsmError: UNAVAILABLE, or FAILED_PRECONDITION for a VPP of another API."""
        link = await self._dial()
        try:
            async with asyncio.timeout(self.timeout):
                table = await link.greet(self._name)
                await self._check(link, table)
        except TimeoutError:
            link.close()
            raise unavailable(f"VPP on {self.path} did not answer within {self.timeout:g} s") from None
        except BaseException:
            link.close()
            raise
        self._link = link
        self._epoch += 1
        self._lost.clear()
        _log.info("connected to VPP", socket=self.path, version=self.version, epoch=self._epoch)
        for up in self._on_up:
            up(self._epoch)

    async def start(self, timeout: float | None = 10.0) -> None:  # noqa: ASYNC109  # the whole wait, not one call
        """Connect within ``timeout`` seconds (``None``: whenever) unless ``connect`` did; then stay connected."""
        try:
            async with asyncio.timeout(timeout):
                if self._link is None:
                    await self._connect_patiently()
        except TimeoutError:
            raise unavailable(f"no VPP answered on {self.path} within {timeout:g} s") from None
        self._keeper = asyncio.create_task(self._keep(), name="vpp-session")

    async def close(self) -> None:
        """Disconnect for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if self._link is not None:
            self._link.close()
            await self._lost.wait()

    async def _dial(self) -> Link:
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_unix_connection(
                lambda: Link(self.counters, self._handle_event, self._drop), self.path
            )
        except OSError as error:
            raise unavailable(f"VPP's API socket {self.path}: {error.strerror or error}") from error
        return link

    async def _check(self, link: Link, table: dict[str, int]) -> None:
        """Refuse a VPP whose messages are not ours, naming all that differ at once."""
        version: ShowVersionReply | None = None
        if f"show_version_{spec_of(ShowVersion).crc:08x}" in table:
            version = await link.post(ShowVersion())
        self.version = version.version if version else "of unknown version"
        lacking = mismatches(table)
        if lacking:
            message = f"VPP {self.version} has another API than 26.06: {'; '.join(lacking)}"
            raise NsmError(Code.FAILED_PRECONDITION, message)
        ping: ControlPingReply = await link.post(ControlPing())
        self.vpp_pid = ping.vpe_pid
        for want in self._wants:
            await link.post(want)

    def _drop(self, link: Link) -> None:
        if self._link is not link:
            return
        self._link = None
        self._lost.set()
        for down in self._on_down:
            down()

    async def _connect_patiently(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self.connect()
            except NsmError as error:
                if error.code is not Code.UNAVAILABLE:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            _log.warning("lost VPP", socket=self.path, epoch=self._epoch)
            try:
                await self._connect_patiently()
            except NsmError as error:  # another VPP than the one we speak to; the next one may be right again
                _log.error("VPP refused", socket=self.path, reason=error.message)
                await asyncio.sleep(_LONGEST_PAUSE)

    # messages

    def _live(self) -> Link:
        if self._link is None:
            raise unavailable(f"no VPP on {self.path}")
        return self._link

    async def call(self, request: Call[ReplyT]) -> ReplyT:
        """Send ``request``; VppError when VPP refuses it."""
        async with self._turn(request, makes=False):
            reply: ReplyT = await self._await(request, self._live().post(request))
        return _checked(request, reply)

    async def calls(self, requests: Sequence[Call[Any]]) -> list[Any]:
        """All in one turn, in order: for each its reply, or the NsmError it failed with."""
        if any(spec_of(each).alone for each in requests):
            outcomes = await asyncio.gather(*[self.call(each) for each in requests], return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException) and not isinstance(outcome, NsmError):
                    raise outcome
            return outcomes
        return await self._answers(self._posted(requests))

    def _posted(self, requests: Sequence[Call[Any]]) -> list[_Posted]:
        """Each with the future of its reply; they leave with whatever else is sent in this turn of the loop."""
        posted: list[_Posted] = []
        for each in requests:
            try:
                future = self._live().post(each)
            except NsmError as error:
                future = asyncio.get_running_loop().create_future()
                future.set_exception(error)
            posted.append((each, future))
        return posted

    async def _answers(self, posted: Sequence[_Posted]) -> list[Any]:
        """For each its reply, or the NsmError it failed with. A future that is given up is cancelled."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.timeout):
                await asyncio.gather(*[future for _, future in posted], return_exceptions=True)
        return [self._outcome(request, future) for request, future in posted]

    def _outcome(self, request: Call[ReplyT], future: "asyncio.Future[ReplyT]") -> ReplyT | NsmError:
        try:
            return _checked(request, future.result())
        except asyncio.CancelledError:
            return self._unanswered(request)
        except NsmError as error:
            return error

    async def create(self, request: Call[ReplyT], undo: Undo[ReplyT], *behind: Call[Any]) -> ReplyT:
        """As ``call``, but a caller that has gone by the time of the reply leaves nothing behind.

        Nor does one of ``behind``, which leave in the same turn, that fails.
        """
        async with self._turn(request, makes=True):
            link = self._live()
            future = link.post(request, undo)
            try:
                outcomes = await self._answers([(request, future), *self._posted(behind)])
            except asyncio.CancelledError:
                if not future.cancelled() and future.exception() is None:
                    link.take_back(undo, future.result())  # the reply came in the turn of the cancellation
                raise
        for outcome in outcomes:
            if isinstance(outcome, NsmError):
                if not isinstance(outcomes[0], NsmError):
                    link.take_back(undo, outcomes[0])
                raise outcome
        made: ReplyT = outcomes[0]
        return made

    def _turn(self, request: object, *, makes: bool) -> contextlib.AbstractAsyncContextManager[Any]:
        """One ring operation at a time: VPP stands still during each, so two in a row lose packets."""
        return self._ring_turn(makes=makes) if spec_of(request).alone else _NO_TURN

    @contextlib.asynccontextmanager
    async def _ring_turn(self, *, makes: bool) -> AsyncIterator[None]:
        async with self._ring_turns.turn(makes=makes):
            with self._around_rings():
                yield

    async def dump(self, request: Dump[DetailsT]) -> list[DetailsT]:
        """Everything VPP lists."""
        found: list[DetailsT] = await self._await(request, self._live().post_dump(request))
        return found

    async def _await(self, request: object, future: "asyncio.Future[Any]") -> Any:
        try:
            async with asyncio.timeout(self.timeout):
                return await future
        except TimeoutError:
            raise self._unanswered(request) from None

    def _unanswered(self, request: object) -> NsmError:
        message = f"VPP did not answer {spec_of(request).name} within {self.timeout:g} s"
        return NsmError(Code.DEADLINE_EXCEEDED, message)

    # events

    async def subscribe(
        self, event: type[EventT], callback: Callable[[EventT], None], want: Call[Any] | None = None
    ) -> None:
        """Call ``callback`` with every ``event``; ``want`` asks VPP for them, now and after each connect."""
        self._handlers.setdefault(event, []).append(callback)
        if want is not None and want not in self._wants:
            self._wants.append(want)
            if self._link is not None:
                await self.call(want)

    def _handle_event(self, event: object) -> None:
        for callback in self._handlers.get(type(event), ()):
            callback(event)


def _checked(request: Call[ReplyT], reply: ReplyT) -> ReplyT:
    retval: int = getattr(reply, "retval", 0)
    if retval != 0:
        raise VppError(spec_of(request).name, retval)
    return reply
