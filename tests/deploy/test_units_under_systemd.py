"""The units as systemd runs them: the commands of ``deploy/README.md`` on two machines that it has booted."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from deploy.containers.demonstration import settled
from nsmctl.lab.census import Census
from nsmctl.lab.probes import Flow, Probes, Verdict
from tests.contract.targets import vpp_binary
from tests.deploy.systemd_host import PLACE, Host, commands, machines, missing

CONTROL = ("nsm-identity", "nsm-manager", "forwarder-vpp")
KEY = "var/lib/nsm/identity/authority.pem"
SAID = commands()
INSTALL = "Then the units and the files they read, to be edited where names or addresses are others"
WITH_VPP, WITHOUT = "On a host with VPP", "On a host without"
FIRST = "On the first host, which keeps the authority of the trust domain and the registry"
SECOND = "On the second host, which has another name and address"
ENDPOINT, CLIENT = (
    "An endpoint for a workload on the second host",
    "A client for a workload on the first host",
)


@pytest.fixture(
    params=[pytest.param("vpp", marks=pytest.mark.vpp), pytest.param("linux", marks=pytest.mark.linux)]
)
def dataplane(request: pytest.FixtureRequest) -> str:
    reason = missing()
    if reason:
        pytest.skip(reason)
    if request.param == "vpp" and vpp_binary() is None:
        pytest.skip("NO VPP: put vpp on PATH or name it in VPP_BINARY")
    return str(request.param)


@pytest.fixture
def hosts(dataplane: str) -> Iterator[list[Host]]:
    addresses = ("10.0.0.1", "10.0.0.2")
    with machines(f"units-{dataplane}", addresses, vpp=dataplane == "vpp") as booted:
        yield booted


def install(hosts: Sequence[Host], dataplane: str) -> None:
    """What the page says, in its order."""
    first, second = hosts
    for host in hosts:
        host.sh(SAID[INSTALL])
        host.sh(SAID[WITH_VPP if dataplane == "vpp" else WITHOUT])
    first.sh(SAID[FIRST])
    key = second.root / KEY
    key.parent.mkdir(parents=True, mode=0o700)
    key.touch(mode=0o600)
    key.write_bytes((first.root / PLACE.strip("/") / "host-2.pem").read_bytes())
    second.sh(SAID[SECOND])


def connect(hosts: Sequence[Host]) -> list[Flow]:
    """Both workloads; the flows between them once the client's interface has its address."""
    first, second = hosts
    second.sh(SAID[ENDPOINT])
    first.sh(SAID[CLIENT])
    first.until("ip -n shop -4 -o addr show dev nsm-1 2>/dev/null | grep -q inet")
    return [Flow(address_of(first, "shop"), address_of(second, "web"))]


def address_of(host: Host, space: str) -> str:
    """The IPv4 address that the mesh has given to a workload."""
    shown = json.loads(host.sh(f"ip -n {space} -j -4 addr show scope global"))
    (found,) = [address["local"] for link in shown for address in link["addr_info"]]
    return str(found)


@contextmanager
def probed(hosts: Sequence[Host], flows: Sequence[Flow], verdicts: list[Verdict]) -> Iterator[None]:
    """1 kHz both ways meanwhile."""
    ends = {"client": hosts[0].space("shop"), "endpoint": hosts[1].space("web")}
    with Probes(flows, rate=1000, seconds=None, **ends) as running:
        yield
        verdicts += running.finish()


def since(before: Census, host: Host) -> tuple[str, ...]:
    return before.difference(host.count())


@pytest.mark.minutes
@pytest.mark.timeout(2400)
def test_a_connection_is_up_through_restarts_and_leaves_nothing(hosts: list[Host], dataplane: str) -> None:
    first, second = hosts
    bare = [host.count() for host in hosts]
    install(hosts, dataplane)
    for host, space in zip(hosts, ("shop", "web"), strict=True):
        host.until("journalctl -o cat -u forwarder-vpp | grep -qw ready")
        host.sh(f"ip netns add {space}; ip -n {space} link set lo up; ip netns del {space}")
    idle = [host.count() for host in hosts]
    flows = connect(hosts)
    vpp = ("nsm-vpp",) if dataplane == "vpp" else ()
    assert set(first.active(*CONTROL, *vpp, "nsm-registry", "nsm-client@shop")) == {"active/running"}
    assert set(second.active(*CONTROL, *vpp, "nsm-endpoint@web")) == {"active/running"}

    verdicts: list[Verdict] = []
    with probed(hosts, flows, verdicts):
        for host in hosts:
            host.ready_after("systemctl restart forwarder-vpp", "forwarder-vpp")
            host.ready_after("systemctl kill --kill-whom=main -s KILL forwarder-vpp", "forwarder-vpp")
            host.ready_after("systemctl restart nsm-manager", "nsm-manager")
    for verdict in verdicts:
        assert min(verdict.forward.received, verdict.back.received) > 1000
        assert (verdict.forward.lost, verdict.back.lost) == (0, 0)

    first.sh("systemctl stop nsm-client@shop")
    second.sh("systemctl stop nsm-endpoint@web")
    first.sh("ip netns del shop")
    second.sh("ip netns del web")
    for host, before in zip(hosts, idle, strict=True):
        assert settled(partial(since, before, host)) == ()
        assert not [line for line in host.daemons() if "wireguard-go" in line]

    for host, before in zip(hosts, bare, strict=True):
        host.sh("systemctl stop forwarder-vpp nsm-vpp nsm-manager nsm-registry nsm-identity")
        assert host.daemons() == []
        assert host.sh("systemctl list-units --failed --plain --no-legend") == ""
        assert since(before, host) == ()


def test_every_command_of_the_page_is_run_or_built_into_the_image() -> None:
    built = "On every host, in the project's folder"
    assert set(SAID) == {built, INSTALL, WITH_VPP, WITHOUT, FIRST, SECOND, ENDPOINT, CLIENT}
    dockerfile = (Path(__file__).parents[2] / "Dockerfile.vpp").read_text()
    for words in ("python3 -m venv /opt/nsm", "--require-hashes -r requirements.lock", "fair_epoll.c"):
        assert words in SAID[built]
        assert words in dockerfile
