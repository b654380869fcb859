"""Tunnels by wireguard-go on the linux dataplane: a process each, whose device is in the workload's namespace."""

import asyncio
import errno
import fcntl
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.linux import tun_lanes, uapi
from forwarder_vpp.dataplane.linux.dataplane import WIREGUARD_GO
from forwarder_vpp.dataplane.linux.objects.wireguard_device import KIND
from forwarder_vpp.dataplane.linux.tun_lanes import lane_name
from forwarder_vpp.dataplane.linux.wireguard_go import PROGRAM
from forwarder_vpp.dataplane.netlink import nsids, syscalls, wire
from forwarder_vpp.dataplane.netlink.session import Session, parsed
from forwarder_vpp.dataplane.netlink.tags import Tags
from nsm.model.errors import Code, NsmError
from nsmctl.lab import namespaces
from nsmctl.lab.namespaces import entered
from tests.netns.linux_node import Executor, census, dataplane, inside, run
from tests.netns.linux_sides import (
    Sides,
    assert_reachable,
    connect,
    disconnect,
    end_all,
    everywhere,
    open_process,
    sent_by,
    vxlan,
    wireguard,
    without_neighbours,
)

pytestmark = [pytest.mark.linux, pytest.mark.netns]

SO_RCVBUFFORCE = 33
WAITING = 700
NETLINK_ROUTE = 0
RTMGRP_LINK = 1
IFINFOMSG = 16
SIOCGSKNS = 0x894C
TUN_FD = 3
KILLED = """
import asyncio, os, pickle, signal, sys
from pathlib import Path
from forwarder_vpp.dataplane.linux import uapi
from forwarder_vpp.dataplane.linux.dataplane import WIREGUARD_GO
from forwarder_vpp.dataplane.linux.wireguard_go import WireguardGo
from forwarder_vpp.dataplane.linux.wireguard_user import UserspaceWireguard
from tests.netns.linux_node import Executor, dataplane

owner, name = {
    "made": (UserspaceWireguard, "_change"),
    "moved": (WireguardGo, "_spawn"),
    "started": (UserspaceWireguard, "_name"),
    "named": (uapi, "set_values"),
}[sys.argv[1]]
setattr(owner, name, lambda *_args, **_named: os.kill(os.getpid(), signal.SIGKILL))

async def main(node, workload, state, intent):
    async with dataplane(node, state, instance="killed", engines=[WIREGUARD_GO]) as plane:
        plane.namespaces.learn(str(workload))
        await Executor(plane).create(plane.items(intent))

asyncio.run(main(*map(Path, sys.argv[2:5]), pickle.loads(Path(sys.argv[5]).read_bytes())))
"""
"""An agent that dies in the middle of making a tunnel."""


@pytest.fixture
def engine() -> str:
    """All tests of this file."""
    return WIREGUARD_GO


async def test_the_device_is_in_the_workload_and_the_socket_at_the_node(sides: Sides) -> None:
    await connect(sides, wireguard(sides))
    assert " tun " in inside(sides[0].workload, "ip", "-d", "link", "show", "nsm-1")
    assert ":52001" in inside(sides[0].node, "ss", "-Hlun")
    assert ":52001" not in inside(sides[0].workload, "ss", "-Hlun")


async def test_a_tunnel_that_comes_and_goes_is_no_event_to_those_of_others(sides: Sides) -> None:
    """They all listen to the links of the node: with hundreds of them each event is hundreds of wake-ups."""
    intents = wireguard(sides)
    with links_heard(sides[0].node) as heard:
        await connect(sides, intents)
        await disconnect(sides, intents)
        assert [name for name in heard() if name not in {"lo", "eth0"}] == []
        inside(sides[0].node, "ip", "link", "add", "seen", "type", "bridge")
        assert "seen" in heard()


@pytest.mark.parametrize("moment", ["made", "moved", "started", "named"])
async def test_what_an_agent_leaves_that_is_killed_goes_with_it_or_by_the_next_one(
    sides: Sides, tmp_path: Path, moment: str
) -> None:
    node, workload, state = sides[0].node, sides[0].workload, tmp_path / "killed"
    before = without_neighbours(census(node, workload))
    intent = wireguard(sides)[0]
    wish = tmp_path / "intent"
    wish.write_bytes(pickle.dumps(intent))
    words = [sys.executable, "-c", KILLED, moment, str(node), str(workload), str(state), str(wish)]
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if moment in {"made", "moved"}:  # all there was is a descriptor
        assert without_neighbours(census(node, workload)) == before
    async with dataplane(node, state, instance="killed", engines=[WIREGUARD_GO]) as plane:
        executor = Executor(plane)
        items = plane.items(intent)
        found = await executor.dump(items)
        assert not any(each.item in items for each in found.values())
        for key, each in found.items():
            if key.kind != KIND:  # goes with its link
                continue
            await executor.descriptors[key.kind].delete(None, each.handle, executor.handles)
        await executor.create(items)  # nothing is in the way
        await executor.delete(items)
    assert without_neighbours(census(node, workload)) == before
    assert not [*(state / "wireguard" / "tunnels").iterdir()]
    assert not run("ip", "netns", "pids", node.name).split()


async def test_where_devices_are_made_ends_with_the_agent_and_the_last_of_them(sides: Sides) -> None:
    intents = wireguard(sides)
    await connect(sides, intents)
    process = open_process(sides[0].state)
    with entered(sides[0].node), Session() as session, Session() as listening:
        told = listening.listen(wire.RTNLGRP_NSID)
        fd = netns_of_tun(process)
        number = nsids.assign(session, fd, syscalls.identity(fd))
        os.close(fd)
        await sides[0].plane.close()
        assert number in nsids.known(session)
        (path,) = sides[0].state.rglob("*.sock")
        await asyncio.to_thread(uapi.end, path)
        await asyncio.to_thread(await_end_of, number, told)
        assert number not in nsids.known(session)


async def test_an_agent_whose_state_is_under_run_makes_tunnels_as_well(sides: Sides) -> None:
    """Labs keep it there; the processes are started where /run is another folder."""
    name = sides[0].node.name
    state = Path("/run") / name
    try:
        async with dataplane(sides[0].node, state, instance="run", engines=[WIREGUARD_GO]) as plane:
            one = replace(sides[0], plane=plane, executor=Executor(plane), state=state)
            plane.namespaces.learn(str(one.workload))
            intents = wireguard(sides)
            await connect((one, sides[1]), intents)
            assert_reachable(sides)
            await disconnect((one, sides[1]), intents)
            assert not [*(state / "wireguard" / "tunnels").iterdir()]
    finally:
        end_all(state)
        shutil.rmtree(state, ignore_errors=True)


async def test_another_agent_of_the_same_instance_is_not_in_the_way(sides: Sides, tmp_path: Path) -> None:
    """One that takes long to end, for instance."""
    before = without_neighbours(everywhere(sides))
    name = sides[0].node.name
    async with dataplane(sides[0].node, tmp_path / "c", instance=name, engines=[WIREGUARD_GO]) as plane:
        second = replace(sides[0], plane=plane, executor=Executor(plane))
        plane.namespaces.learn(str(second.workload))
        intents = wireguard(sides)
        await connect((second, sides[1]), intents)
        assert_reachable(sides)
        await disconnect((second, sides[1]), intents)
    assert without_neighbours(everywhere(sides)) == before


async def test_a_device_that_was_left_on_its_way_is_replaced(sides: Sides) -> None:
    before = without_neighbours(everywhere(sides))
    group = str(Tags(sides[0].node.name).group)
    for name in lanes_of(sides):
        inside(sides[0].workload, "ip", "link", "add", name, "group", group, "type", "bridge")
    items = sides[0].plane.items(wireguard(sides)[0])
    for _ in lanes_of(sides):  # each lane once
        await sides[0].executor.create(items)
        await sides[0].executor.delete(items)
    assert without_neighbours(everywhere(sides)) == before


async def test_a_foreign_device_of_a_lanes_name_is_left_alone(sides: Sides) -> None:
    for name in lanes_of(sides):
        inside(sides[0].workload, "ip", "link", "add", name, "type", "bridge")
    before = without_neighbours(everywhere(sides))
    with pytest.raises(NsmError) as refused:
        await sides[0].executor.create(sides[0].plane.items(wireguard(sides)[0]))
    assert refused.value.code is Code.ALREADY_EXISTS
    assert without_neighbours(everywhere(sides)) == before
    assert not [*(sides[0].state / "wireguard" / "tunnels").glob("*")]


async def test_a_process_that_ends_at_once_leaves_nothing(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / PROGRAM
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    state = tmp_path / "broken"
    async with dataplane(sides[0].node, state, instance="broken", engines=[WIREGUARD_GO]) as plane:
        plane.namespaces.learn(str(sides[0].workload))
        before = without_neighbours(everywhere(sides))
        with pytest.raises(NsmError, match="ended at once"):
            await Executor(plane).create(plane.items(wireguard(sides)[0]))
        assert without_neighbours(everywhere(sides)) == before
    assert not [*(state / "wireguard" / "tunnels").iterdir()]


@pytest.mark.parametrize("missing", ["namespace", "device"])
async def test_where_lanes_cannot_be_had_all_else_works_and_a_tunnel_says_why(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def refuse() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if missing == "namespace":
        monkeypatch.setattr(syscalls, "new_netns", refuse)
    else:
        monkeypatch.setattr(tun_lanes, "TUN", tmp_path / "nothing")
    before = without_neighbours(everywhere(sides))
    async with dataplane(sides[0].node, tmp_path / "c", instance="lacking", engines=[WIREGUARD_GO]) as plane:
        plane.namespaces.learn(str(sides[0].workload))
        executor = Executor(plane)
        with pytest.raises(NsmError, match="the kernel refused a") as refused:
            await executor.create(plane.items(wireguard(sides)[0]))
        assert refused.value.code is Code.FAILED_PRECONDITION
        items = plane.items(vxlan(sides)[0])
        await executor.create(items)
        await executor.delete(items)
    assert without_neighbours(everywhere(sides)) == before


@pytest.mark.parametrize("stopped", [0, 1])
async def test_a_process_that_does_not_run_for_a_while_loses_nothing(sides: Sides, stopped: int) -> None:
    """Seven hundred packets wait for it, at its device or at its socket."""
    await connect(sides, wireguard(sides))
    sender, receiver = (datagrams(side.workload) for side in sides)
    process = open_process(sides[stopped].state)
    with receiver, sender:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        receiver.settimeout(20)
        receiver.bind(("172.16.1.2", 4242))
        before = sent_by(sides[0].node)
        try:
            signal.pidfd_send_signal(process, signal.SIGSTOP)
            for number in range(WAITING):
                sender.sendto(number.to_bytes(4), ("172.16.1.2", 4242))
            if stopped == 1:
                await asyncio.to_thread(await_packets, sides[0].node, before + WAITING)
        finally:
            signal.pidfd_send_signal(process, signal.SIGCONT)
            os.close(process)
        got = {int.from_bytes(receiver.recv(16)) for _ in range(WAITING)}
    assert got == {*range(WAITING)}


async def test_the_process_ends_with_the_workloads_namespace(sides: Sides) -> None:
    intent = wireguard(sides)[0]
    items = sides[0].plane.items(intent)
    await sides[0].executor.create(items)
    process = open_process(sides[0].state)
    told: asyncio.Future[NetnsId] = asyncio.get_running_loop().create_future()
    sides[0].plane.namespaces.on_gone(told.set_result)
    namespaces.delete(sides[0].workload.name)
    async with asyncio.timeout(30):
        await told
    assert await asyncio.to_thread(has_ended, process)
    found = await sides[0].executor.dump(items)
    assert all(each.item is None for each in found.values())
    for key in found:
        await (
            sides[0].executor.descriptors[key.kind].delete(None, found[key].handle, sides[0].executor.handles)
        )
    assert not list(sides[0].state.rglob("*.sock"))


def lanes_of(sides: Sides) -> list[str]:
    """Names of the stand-ins at the first node."""
    names = {lane_name(sides[0].node.name, number) for number in range(64)}
    return [name for name in shown(sides[0].node) if name in names]


def shown(netns: Path) -> list[str]:
    return [line.split(": ")[1] for line in inside(netns, "ip", "-o", "link").splitlines()]


@contextmanager
def links_heard(netns: Path) -> Iterator[Callable[[], list[str]]]:
    """Listens as wireguard-go does; the names of the links that were told of since."""
    with entered(netns):
        listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_ROUTE)
    listening.bind((0, RTMGRP_LINK))

    def heard() -> list[str]:
        names = []
        with suppress(BlockingIOError):
            while True:
                for _, _, _, body in parsed(listening.recv(1 << 16)):
                    names.append(wire.string(wire.unpack(body[IFINFOMSG:]), wire.IFLA_IFNAME))
        return names

    with listening:
        yield heard


def netns_of_tun(process: int) -> int:
    """The namespace in which the device of a wireguard-go was made (``process``: a pidfd, closed here)."""
    try:
        tun = syscalls.fd_of(process, TUN_FD)
    finally:
        os.close(process)
    try:
        return fcntl.ioctl(tun, SIOCGSKNS)
    finally:
        os.close(tun)


def await_end_of(number: int, told: socket.socket) -> None:
    """Until the kernel says that the namespace of that id has ended."""
    while select.select([told], [], [], 30)[0]:
        for kind, _, _, body in parsed(told.recv(1 << 16)):
            if kind == wire.RTM_DELNSID and nsids.number_in(body) == number:
                return
    raise AssertionError("the namespace is still there")


def datagrams(netns: Path) -> socket.socket:
    with entered(netns):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def await_packets(node: Path, wanted: int) -> None:
    """Until so many have left; each look takes some milliseconds."""
    limit = time.monotonic() + 30
    while sent_by(node) < wanted:
        assert time.monotonic() < limit, f"{sent_by(node)} of {wanted} packets"


def has_ended(process: int) -> bool:
    try:
        return bool(select.select([process], [], [], 20)[0])
    finally:
        os.close(process)
