"""The pool's decisions, against the fake VPP and a kernel that only keeps links: when pairs are made and go."""

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.netlink import ready
from forwarder_vpp.dataplane.netlink.access import NODE
from forwarder_vpp.dataplane.netlink.links import AT_NODE, Link
from forwarder_vpp.dataplane.netlink.session import NetlinkError
from forwarder_vpp.dataplane.netlink.tags import Tag
from forwarder_vpp.dataplane.netlink.veth import FAR, NEAR, Veth, VethEnd
from forwarder_vpp.dataplane.vpp import pool as module
from forwarder_vpp.dataplane.vpp.objects.af_packet import Ring
from forwarder_vpp.dataplane.vpp.objects.inventory import inventory
from forwarder_vpp.dataplane.vpp.pool import Shape, WarmPool
from forwarder_vpp.dataplane.vpp.session import VppSession
from nsm.model.errors import Code, NsmError
from tests.fakes.fake_vpp.server import FakeVpp

WORKLOAD = NetnsId(4, 1, 1)
MAC = "02:00:00:00:00:01"
SHAPE = Shape(Ring(), MAC)
ITEM = Veth("nsm1-x/c", VethEnd(WORKLOAD, "nsm-1", MAC), VethEnd(NODE, "nv1", MAC), 1400)


@dataclass
class Kernel:
    """Links by index; ``refusal`` is what the next handing over fails with."""

    there: dict[int, Link] = field(default_factory=dict)
    refusal: NsmError | None = None
    made: int = 0

    async def make(self, netlink: object, owner: str, name: str) -> ready.Pair:
        near, far = (
            self._add(f"{start}{name}", Tag(owner, role, NODE), is_up=start == "nvp")
            for start, role in (("nwp", ready.READY_NEAR), ("nvp", ready.READY_FAR))
        )
        return ready.Pair(owner, near, far)

    def _add(self, name: str, tag: Tag, *, is_up: bool) -> Link:
        self.made += 1
        link = Link(AT_NODE, self.made, name, "veth", 1500, MAC, "", 0, is_up, 0, {}, tag)
        self.there[link.index] = link
        return link

    async def hand_over(self, netlink: object, pair: ready.Pair, item: Veth) -> tuple[Link, Link]:
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal
        near = replace(pair.near, tag=Tag(item.owner, NEAR, item.near.netns))
        far = replace(pair.far, tag=Tag(item.owner, FAR, NODE))
        self.there |= {near.index: near, far.index: far}
        return near, far

    async def links(self) -> Sequence[Link]:
        return list(self.there.values())

    async def remove(self, link: Link) -> None:
        """The pair goes by either end."""
        self.there = {index: each for index, each in self.there.items() if each.name[3:] != link.name[3:]}

    @property
    def names(self) -> set[str]:
        return {each.name for each in self.there.values() if each.name.startswith("nvp")}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel()
    monkeypatch.setattr(ready, "make", found.make)
    monkeypatch.setattr(ready, "hand_over", found.hand_over)
    monkeypatch.setattr(module, "REST", 0.01)
    monkeypatch.setattr(module, "RETRY", 0.01)
    return found


def pool_of(vpp: VppSession, kernel: Any, size: int, shape: Shape = SHAPE) -> WarmPool:
    return WarmPool(vpp, kernel, shape, size, "instance")


async def full(pool: WarmPool) -> WarmPool:
    await pool.start()
    await filled(pool)
    return pool


async def filled(pool: WarmPool) -> None:
    async with asyncio.timeout(5):
        await pool.filled(pool.size)


def in_vpp(fake: FakeVpp) -> set[str]:
    return {each.name.removeprefix("host-") for each in fake.model.of_kind("af-packet").values()}


async def killed(pool: WarmPool) -> None:
    """As by SIGKILL: nothing is cleared away."""
    assert pool._task is not None
    pool._task.cancel()
    await asyncio.wait([pool._task])


async def test_a_pair_that_is_taken_is_made_up_for_and_the_end_leaves_what_was_taken(
    vpp: VppSession, fake: FakeVpp, kernel: Kernel
) -> None:
    pool = await full(pool_of(vpp, kernel, 2))
    assert len(kernel.names) == 2
    assert in_vpp(fake) == kernel.names
    ends = await pool.hand_over(ITEM)
    assert ends is not None
    taken = ends[1].name
    index = pool.claim(taken)
    assert index is not None
    assert index.link == taken
    assert fake.model.interfaces[index].name == f"host-{taken}"
    assert pool.claim(taken) is None
    await filled(pool)
    assert len(kernel.names) == 3
    await pool.close()
    assert kernel.names == {taken}
    assert in_vpp(fake) == {taken}


async def test_nothing_is_made_while_links_are_worked_on(vpp: VppSession, kernel: Kernel) -> None:
    pool = pool_of(vpp, kernel, 1)
    with pool.held_off():
        await pool.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5 * module.REST):
                await pool.filled(1)
        assert kernel.made == 0
    await filled(pool)
    await pool.close()


async def test_while_it_waits_for_its_turn_others_have_theirs(vpp: VppSession, kernel: Kernel) -> None:
    """Work that begins within the rest after earlier work finds a loop that turns."""
    pool = pool_of(vpp, kernel, 1)
    await pool.start()
    loop = asyncio.get_running_loop()
    with pool.held_off():
        spun = 0
        turned = loop.create_future()
        step = pool._step

        async def counted() -> None:
            nonlocal spun
            spun += 1
            assert spun < 10, "it asks again and again"
            await step()

        pool._step = counted  # type: ignore[method-assign]
        loop.call_later(2 * module.REST, turned.set_result, None)
        await turned
    assert spun < 10
    await pool.close()


async def test_a_pool_of_none_gives_nothing(vpp: VppSession, kernel: Kernel) -> None:
    pool = await full(pool_of(vpp, kernel, 0))
    assert await pool.hand_over(ITEM) is None
    await pool.close()
    assert kernel.made == 0


async def test_a_name_that_is_taken_costs_no_pair(vpp: VppSession, kernel: Kernel) -> None:
    pool = await full(pool_of(vpp, kernel, 1))
    there = kernel.names
    kernel.refusal = NetlinkError(errno.EEXIST, "to hand over")
    assert await pool.hand_over(ITEM) is None
    await filled(pool)
    assert kernel.names == there
    await pool.close()


async def test_any_other_failure_costs_the_pair(vpp: VppSession, fake: FakeVpp, kernel: Kernel) -> None:
    pool = await full(pool_of(vpp, kernel, 1))
    there = kernel.names
    kernel.refusal = NsmError(Code.FAILED_PRECONDITION, "the namespace is gone")
    assert await pool.hand_over(ITEM) is None
    await filled(pool)
    assert not kernel.names & there
    assert in_vpp(fake) == kernel.names
    await pool.close()


async def test_vpps_interface_that_nobody_claimed_goes_before_the_pair(
    vpp: VppSession, fake: FakeVpp, kernel: Kernel
) -> None:
    pool = await full(pool_of(vpp, kernel, 1))
    ends = await pool.hand_over(ITEM)
    assert ends is not None
    await pool.abandon(ends[1].name)
    assert ends[1].name not in in_vpp(fake)
    assert pool.claim(ends[1].name) is None
    await pool.close()


@pytest.mark.parametrize("message", ["af_packet_create_v3", "sw_interface_tag_add_del"])
async def test_what_was_made_of_a_pair_that_failed_is_removed(
    vpp: VppSession, fake: FakeVpp, kernel: Kernel, message: str
) -> None:
    fake.fail(message, -1)
    pool = await full(pool_of(vpp, kernel, 1))
    assert kernel.made == 4
    assert len(kernel.names) == 1
    assert in_vpp(fake) == kernel.names
    await pool.close()


async def test_a_fault_of_ours_ends_neither_the_pool_nor_the_end(
    vpp: VppSession, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([ValueError("a fault")])

    async def faulty(*words: Any) -> ready.Pair:
        for fault in faults:
            raise fault
        return await kernel.make(*words)

    monkeypatch.setattr(ready, "make", faulty)
    pool = await full(pool_of(vpp, kernel, 1))
    await pool.close()
    assert not kernel.names


async def test_the_next_agent_takes_over_what_is_whole_and_writes_nothing(
    vpp: VppSession, kernel: Kernel
) -> None:
    await killed(await full(pool_of(vpp, kernel, 2)))
    there, written = kernel.names, vpp.counters.mutating
    second = await full(pool_of(vpp, kernel, 2))
    assert (kernel.names, vpp.counters.mutating) == (there, written)
    await second.close()


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        ((0, SHAPE), 0),
        ((1, SHAPE), 1),
        ((2, replace(SHAPE, ring=Ring(frames=30))), 0),
        ((2, replace(SHAPE, mac="02:00:00:00:00:02")), 0),
    ],
)
async def test_the_next_agent_removes_what_it_has_no_use_for(
    vpp: VppSession, fake: FakeVpp, kernel: Kernel, second: tuple[int, Shape], kept: int
) -> None:
    await killed(await full(pool_of(vpp, kernel, 2)))
    there = kernel.names
    pool = pool_of(vpp, kernel, *second)
    with pool.held_off():
        await pool.start()
        assert len(kernel.names & there) == kept
        assert in_vpp(fake) == kernel.names
    await pool.close()


async def test_halves_of_pairs_go_and_what_a_connection_has_stays(
    vpp: VppSession, fake: FakeVpp, kernel: Kernel
) -> None:
    """The kernel has handed it over and VPP has not; only VPP has it; only the kernel; it has lost an end."""
    await killed(await full(pool_of(vpp, kernel, 4)))
    fars = [each for each in kernel.there.values() if each.name.startswith("nvp")]
    handed, vpps, kernels, single = fars
    del kernel.there[single.index - 1]
    kernel.there[handed.index] = replace(handed, tag=Tag("nsm1-x/c", FAR, NODE))
    near = kernel.there[handed.index - 1]
    kernel.there[near.index] = replace(near, tag=Tag("nsm1-x/c", NEAR, WORKLOAD))
    await kernel.remove(vpps)
    index = next(i for i, each in fake.model.interfaces.items() if each.name == f"host-{kernels.name}")
    fake.model.remove(index)
    pool = await full(pool_of(vpp, kernel, 0))
    assert in_vpp(fake) == set()
    assert kernel.names == {handed.name}
    await pool.close()


async def test_after_vpps_death_the_pool_is_another(vpp: VppSession, fake: FakeVpp, kernel: Kernel) -> None:
    pool = pool_of(vpp, kernel, 1)
    came = asyncio.Event()
    vpp.on_up(lambda _epoch: pool.empty())
    vpp.on_up(lambda _epoch: came.set())
    await full(pool)
    there = kernel.names
    await fake.kill()
    await fake.start()
    await came.wait()
    await filled(pool)
    assert not kernel.names & there
    assert in_vpp(fake) == kernel.names
    await pool.close()
    assert not kernel.names


async def test_nobody_else_sees_an_interface_that_waits(
    vpp: VppSession, fake: FakeVpp, kernel: Kernel
) -> None:
    pool = await full(pool_of(vpp, kernel, 1))
    assert len(in_vpp(fake)) == 1
    assert (await inventory(vpp)).by_index == {}
    await pool.close()
