"""Which mechanism an endpoint answers with, and how its interface is called."""

import re

import pytest

from controlplane.endpoint.mechanism import choose, complete, with_payload
from controlplane.workload import OWN_NETNS, check_interface_name, interface_name, netns_path
from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import KERNEL, LOCAL, MEMIF, NOOP, REMOTE, VXLAN, Mechanism

BARE = Connection(id="c", network_service="icmp-responder")
NETNS = "file:///run/netns/blue"


def test_the_first_possible_preference_is_taken() -> None:
    offered = [
        Mechanism(REMOTE, KERNEL),
        Mechanism(LOCAL, MEMIF),
        Mechanism(LOCAL, NOOP),
        Mechanism(LOCAL, KERNEL),
    ]
    assert choose(BARE, offered).type == NOOP


def test_a_refresh_keeps_what_was_agreed() -> None:
    agreed = Mechanism(LOCAL, KERNEL, {"name": "nse-1"})
    connection = Connection(id="c", mechanism=agreed)
    assert choose(connection, [Mechanism(LOCAL, NOOP)]) == agreed


@pytest.mark.parametrize(
    ("connection", "field"),
    [
        (BARE, "mechanism_preferences"),
        (Connection(id="c", mechanism=Mechanism(REMOTE, VXLAN)), "connection.mechanism"),
    ],
)
def test_nothing_possible_is_refused_with_the_field(connection: Connection, field: str) -> None:
    with pytest.raises(NsmError) as caught:
        choose(connection, [Mechanism(REMOTE, VXLAN), Mechanism(LOCAL, "WARP")])
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.field == field
    assert "LOCAL KERNEL or LOCAL NOOP" in caught.value.message


def test_kernel_gets_our_namespace_and_a_name_that_stays() -> None:
    first = complete(Mechanism(LOCAL, KERNEL, {"inodeURL": "file:///proc/self/fd/9"}), BARE, None, NETNS)
    assert first.get("inodeURL") == NETNS
    assert re.fullmatch(r"icmp-respo-[A-Za-z0-9]{4}", first.get("name"))
    stored = Connection(id="c", network_service="icmp-responder", mechanism=first)
    assert (
        complete(Mechanism(LOCAL, KERNEL), BARE, stored, NETNS) == first
    )  # the forwarder forgot, we did not
    assert complete(first, BARE, None, NETNS) == first  # we were restarted, the forwarder was not


def test_noop_is_answered_as_it_came() -> None:
    offered = Mechanism(LOCAL, NOOP, {"any": "thing"})
    assert complete(offered, BARE, None, NETNS) == offered


@pytest.mark.parametrize("name", ["sixteen-bytes-xx", "éééééééé", "a b", "..", "a/b", "a:b"])
def test_a_name_the_kernel_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(NsmError) as caught:
        complete(Mechanism(LOCAL, KERNEL, {"name": name}), BARE, None, NETNS)
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "mechanism.parameters.name")


@pytest.mark.parametrize("service", ["a", "icmp-responder", "große/netze@x", "svc@domain"])
def test_made_up_names_are_fifteen_bytes_and_valid(service: str) -> None:
    names = {interface_name(service) for _ in range(20)}
    assert len(names) > 1
    for name in names:
        assert len(check_interface_name(name).encode()) == 15


def test_an_unknown_payload_is_refused_and_a_missing_one_is_ours() -> None:
    assert with_payload(BARE, "IP").payload == "IP"
    assert with_payload(Connection(payload="ETHERNET"), "IP").payload == "ETHERNET"
    with pytest.raises(NsmError) as caught:
        with_payload(Connection(payload="MPLS"), "IP")
    assert caught.value.field == "connection.payload"


def test_a_namespace_is_a_name_a_process_or_a_path() -> None:
    assert netns_path("") == OWN_NETNS
    assert str(netns_path("blue")) == "/run/netns/blue"
    assert str(netns_path("4711")) == "/proc/4711/ns/net"
    assert str(netns_path("/proc/1/ns/net")) == "/proc/1/ns/net"
    for bad in ("a/b", "..", "a\0b"):
        with pytest.raises(ValueError, match="expected the name of a network namespace"):
            netns_path(bad)
