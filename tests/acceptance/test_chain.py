"""A path that passes the same manager and the same forwarder three times: two endpoints pass on to a third."""

from nsmctl.lab import namespaces
from nsmctl.lab.probes import Flow
from tests.scenes import Scene, carried


def test_three_endpoints_chained_on_one_node(lab: Scene) -> None:
    pools = {name: f"[172.16.{number}.0/24]" for number, name in enumerate(("first", "second", "last"), 1)}
    lab.endpoint("last", node=lab.near, NSM_CIDR_PREFIX=pools["last"])
    lab.passthrough("second", "last-service", NSM_CIDR_PREFIX=pools["second"])
    lab.passthrough("first", "second-service", NSM_CIDR_PREFIX=pools["first"])
    before = lab.census()
    (connection,) = lab.client("caller", "first-service", NSM_MAX_TOKEN_LIFETIME="12s")
    names = [hop["name"] for hop in connection["path"]]
    manager, forwarder = (f"{role}-{lab.near.name}" for role in ("manager", "forwarder"))
    assert names == [
        "caller",
        manager,
        forwarder,
        "first",
        manager,
        forwarder,
        "second",
        manager,
        forwarder,
        "last",
    ]
    assert len({hop["id"] for hop in connection["path"]}) == len(names)
    flow = Flow(connection["src_ip_addrs"][0].partition("/")[0], address_of(lab, "last"))
    with lab.probes([flow], "caller", "last") as running:
        lab.refreshed("caller-0", 1)
        carried(running.finish(), families=1)
    lab.remove("caller")
    assert lab.left_since(before) == ()


def address_of(lab: Scene, endpoint: str) -> str:
    """The address at the end of the chain."""
    with namespaces.netlink(lab.netns(endpoint)) as ip:
        found = [
            dict(entry["attrs"])["IFA_ADDRESS"] for entry in ip.get_addr(family=2) if entry["index"] != 1
        ]
    (address,) = found
    return str(address)
