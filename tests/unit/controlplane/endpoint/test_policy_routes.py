"""The policy file as upstream's examples write it, and messages for what is wrong in it."""

from pathlib import Path

import pytest

from controlplane.endpoint.policy_routes import PolicyRouteError, load_policies, parse_policies, with_policies
from nsm.model.context import IpContext, PolicyRoute, Route

FILE = """
- from: 172.16.2.201/24
  proto: 6
  dstport: 6666
  routes:
    - prefix: 172.16.3.0/24
      nexthop: 172.16.2.200
- proto: "17"
  src_port: 5000-5010
  port: 80
- from: 2004::3/120
  routes: [{prefix: 2004::5/120, next_hop: 2004::6}]
"""
POLICIES = (
    PolicyRoute("172.16.2.201/24", "6", "6666", "", (Route("172.16.3.0/24", "172.16.2.200"),)),
    PolicyRoute("", "17", "80", "5000-5010"),
    PolicyRoute("2004::3/120", routes=(Route("2004::5/120", "2004::6"),)),
)


def test_a_file_of_upstreams_form_is_read() -> None:
    assert parse_policies(FILE, "f") == POLICIES


def test_no_file_and_an_empty_file_are_no_policies(tmp_path: Path) -> None:
    assert load_policies(tmp_path / "none.yaml") == ()
    (tmp_path / "empty.yaml").write_text("")
    assert load_policies(tmp_path / "empty.yaml") == ()


def test_a_file_is_read_from_its_path(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(FILE)
    assert load_policies(tmp_path / "p.yaml") == POLICIES


def test_every_bad_entry_is_named_at_once() -> None:
    text = (
        "- {from: nowhere, proto: tcp}\n- {dstport: 90-80, srcport: 70000}\n- 7\n"
        "- {form: 10.0.0.1}\n- {routes: [{nexthop: 10.0.0.1}, {prefix: x}]}\n- {routes: 1, proto: true}\n"
    )
    with pytest.raises(PolicyRouteError) as caught:
        parse_policies(text, "pbr.yaml")
    lines = str(caught.value).splitlines()
    assert [line.split(": expected")[0] for line in lines] == [
        "pbr.yaml: [0].from",
        "pbr.yaml: [0].proto",
        "pbr.yaml: [1].dstport",
        "pbr.yaml: [1].srcport",
        "pbr.yaml: [2]",
        "pbr.yaml: [3].form",
        "pbr.yaml: [4].routes[0].prefix",
        "pbr.yaml: [4].routes[1].prefix",
        "pbr.yaml: [5].routes",
        "pbr.yaml: [5].proto",
    ]


@pytest.mark.parametrize("text", ["a: 1", "[", "text"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(PolicyRouteError, match=r"pbr\.yaml: expected"):
        parse_policies(text, "pbr.yaml")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyRouteError, match="expected a readable file"):
        load_policies(tmp_path)


def test_policies_are_replaced_and_their_addresses_follow() -> None:
    first = with_policies(IpContext(src_ip_addrs=("10.0.0.1/32",)), POLICIES)
    assert first.src_ip_addrs == ("10.0.0.1/32", "172.16.2.201/24", "2004::3/120")
    assert first.policies == POLICIES
    assert with_policies(first, POLICIES) == first
    second = with_policies(first, POLICIES[2:])
    assert second.src_ip_addrs == ("10.0.0.1/32", "2004::3/120")
    assert with_policies(second, ()).src_ip_addrs == ("10.0.0.1/32",)
