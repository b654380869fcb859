"""What judges the mesh is judged first: probes count exactly, the census sees what is there."""

import fcntl
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from nsmctl.errors import LabError
from nsmctl.lab import census, counters, namespaces, probe, throughput
from nsmctl.lab.probes import Flow, Probes

pytestmark = pytest.mark.netns
Make = Callable[[str], Path]


def sh(space: Path, command: str) -> str:
    with namespaces.entered(space):
        return subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout


@pytest.fixture
def pair(make_netns: Make) -> tuple[Path, Path]:
    """Two namespaces joined by a veth pair, v4 and v6."""
    a, b = make_netns("a"), make_netns("b")
    sh(a, f"ip link add va type veth peer name vb netns {b.name}")
    for space, device, number in ((a, "va", 1), (b, "vb", 2)):
        sh(space, f"ip addr add 10.9.0.{number}/24 dev {device}")
        sh(space, f"ip addr add fd09::{number}/64 dev {device} nodad")
        sh(space, f"ip link set {device} up")
    return a, b


FLOWS = (Flow("10.9.0.1", "10.9.0.2"), Flow("fd09::1", "fd09::2"))


def test_nothing_is_lost_on_a_good_link_and_everything_is_counted(pair: tuple[Path, Path]) -> None:
    with Probes(FLOWS, client=pair[0], endpoint=pair[1], rate=500, seconds=1) as probes:
        verdicts = probes.finish()
    for verdict in verdicts:
        assert verdict.forward.sent == verdict.back.sent == 500
        assert verdict.lost == 0
        assert verdict.rtt_p50_us is not None


def test_ten_thousand_a_second_each_way_are_all_counted(pair: tuple[Path, Path]) -> None:
    with Probes(FLOWS[:1], client=pair[0], endpoint=pair[1], rate=10_000, seconds=1) as probes:
        (verdict,) = probes.finish()
    assert verdict.forward.sent == verdict.back.sent == 10_000
    assert (verdict.lost, verdict.forward.duplicates, verdict.back.duplicates) == (0, 0, 0)
    assert 0 < verdict.forward.rate < 11_000  # no faster than asked for, whatever the machine does


class Stalling:
    """A clock for ``probe`` that passes when it sleeps, and once jumps as if nobody had got the processor."""

    def __init__(self, at_ns: int, stall_ns: int) -> None:
        self.now = 0
        self._at, self._stall = at_ns, stall_ns

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)
        if self.now >= self._at:
            self.now, self._at = self.now + self._stall, 1 << 62


def test_who_stood_still_makes_up_for_little_at_once_and_for_all_of_it_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow = {"local": "127.0.0.1", "remote": "127.0.0.1", "port": 0}
    end = probe.Probe({"flows": [flow], "rate": 10_000, "seconds": 1})
    monkeypatch.setattr(probe, "time", Stalling(100_000_000, 500_000_000))
    words = iter([["go"]])
    monkeypatch.setattr(end, "wait", lambda _: next(words, []))
    monkeypatch.setattr(end, "drain", lambda: None)
    end.run()
    end.flows[0].socket.close()
    sent = Counter(end.times[0])
    assert sum(sent.values()) == 10_000
    assert max(sent.values()) <= end.burst * (2 + probe.LATE_S / probe.TURN_S)
    assert max(sent) > 1_400_000_000


def drop_every(space: Path, device: str, rule: str) -> None:
    with namespaces.entered(space):
        script = f'table netdev t {{ chain c {{ type filter hook ingress device "{device}" priority 0; {rule}\n}}\n}}\n'
        subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def test_each_lost_packet_is_counted_on_its_way(pair: tuple[Path, Path]) -> None:
    drop_every(pair[1], "vb", "ip protocol udp numgen inc mod 10 0 counter drop")
    with Probes(FLOWS, client=pair[0], endpoint=pair[1], rate=500, seconds=1) as probes:
        four, six = probes.finish()
    dropped = sh(pair[1], "nft list ruleset").split("packets ")[1].split()[0]
    assert four.forward.lost == int(dropped) == 50
    assert four.back.lost == six.lost == 0


def test_a_cut_link_loses_all_and_the_loss_is_not_an_error(pair: tuple[Path, Path]) -> None:
    sh(pair[1], "ip link set vb down")
    with Probes(FLOWS[:1], client=pair[0], endpoint=pair[1], rate=200, seconds=0.5) as probes:
        (verdict,) = probes.finish()
    assert verdict.forward.sent == verdict.back.sent == 100
    assert verdict.forward.received == verdict.back.received == 0
    assert verdict.rtt_p50_us is None


def test_an_address_that_is_not_there_is_said(pair: tuple[Path, Path]) -> None:
    probes = Probes([Flow("10.9.0.77", "10.9.0.2")], client=pair[0], endpoint=pair[1], seconds=1)
    with pytest.raises(LabError, match="Cannot assign requested address"), probes:
        pass


def test_the_census_sees_every_kind_of_leftover(pair: tuple[Path, Path], tmp_path: Path) -> None:
    def count() -> census.Census:
        return census.take(spaces=pair, directories=[tmp_path])

    before = count()
    assert before.difference(count()) == ()
    a = pair[0]
    sh(a, "ip link add left type bridge")
    sh(a, "ip addr add 10.77.0.1/32 dev va")
    sh(a, "ip route add 10.78.0.0/24 dev va")
    sh(a, "ip rule add from 10.79.0.1 table 99")
    sh(a, "ip neigh add 10.9.0.9 lladdr 02:00:00:00:00:09 dev va nud permanent")
    drop_every(a, "va", "counter")
    (tmp_path / "left.sock").touch()
    kinds = {line.split(":")[0] for line in before.difference(count())}
    name = a.name
    expected = {f"+ {kind} {name}" for kind in ("link", "route4", "rule4", "neighbour", "nftables")}
    assert expected <= kinds
    assert f"+ file {tmp_path}" in kinds


def setting_of(left: Sequence[str]) -> list[str]:
    return [line for line in left if line[2:].startswith(census.SETTING)]


def test_a_setting_of_the_machine_counts_unless_a_forwarder_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that the linux dataplane raises for its tunnels; here two files stand for it and for its users' lock."""
    value, users = tmp_path / "max_user_instances", tmp_path / "lock"
    monkeypatch.setattr(census, "settings", partial(census.settings, value, users))
    value.write_text("128\n")
    before = census.take()
    value.write_text("8192\n")
    with users.open("w") as user:
        fcntl.flock(user, fcntl.LOCK_SH)
        assert not setting_of(before.difference(census.take()))
    left = setting_of(before.difference(census.take()))
    assert left == ["+ setting: max_user_instances 8192", "- setting: max_user_instances 128"]


def test_iperf3_measures_the_link(pair: tuple[Path, Path]) -> None:
    assert throughput.tcp(client=pair[0], endpoint=pair[1], address="10.9.0.2", seconds=1) > 0


def test_tunnel_counters_are_those_of_tunnel_devices_only(pair: tuple[Path, Path]) -> None:
    a, b = pair
    for space, remote, device in ((a, "10.9.0.2", "va"), (b, "10.9.0.1", "vb")):
        sh(space, f"ip link add vx type vxlan id 7 remote {remote} dstport 4789 dev {device}")
        sh(space, "ip link set vx up")
    sh(a, "ip addr add 10.8.0.1/24 dev vx")
    sh(b, "ip addr add 10.8.0.2/24 dev vx")
    before = counters.of_kernel(a)
    with Probes([Flow("10.8.0.1", "10.8.0.2")], client=a, endpoint=b, rate=200, seconds=1) as probes:
        (verdict,) = probes.finish()
    now = counters.of_kernel(a).since(before)
    assert verdict.lost == 0
    assert now.rx >= 200
    assert now.tx >= 200
    assert now.tx < 1000
