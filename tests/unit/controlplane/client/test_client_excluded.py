"""Connections of one client keep off each other's addresses."""

import pytest

from controlplane.client.excluded import check, excluding, prefixes_of
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, IpContext, Route
from nsm.model.errors import Code, NsmError


def connection(**parts: object) -> Connection:
    return Connection(id="c", context=ConnectionContext(ip_context=IpContext(**parts)))  # type: ignore[arg-type]


def test_a_connection_occupies_addresses_and_routes_but_no_default_route() -> None:
    one = connection(
        src_ip_addrs=("10.0.0.1/32",),
        dst_ip_addrs=("10.0.0.0/32", "fd00::/128"),
        src_routes=(Route("10.0.0.0/32"), Route("192.168.0.0/16"), Route("0.0.0.0/0")),
    )
    assert prefixes_of(one) == ("10.0.0.1/32", "10.0.0.0/32", "fd00::/128", "192.168.0.0/16")


def test_foreign_exclusions_stay_and_ours_follow_the_other_connections() -> None:
    asked = excluding(connection(excluded_prefixes=("172.16.0.0/12",)), ["10.0.0.1/32"], [])
    assert asked.ip.excluded_prefixes == ("172.16.0.0/12", "10.0.0.1/32")
    later = excluding(asked, ["10.0.0.9/32"], ["10.0.0.1/32"])
    assert later.ip.excluded_prefixes == ("172.16.0.0/12", "10.0.0.9/32")


def test_a_request_without_exclusions_is_left_as_it_is() -> None:
    bare = Connection(id="c")
    assert excluding(bare, [], []) is bare


def test_an_answer_with_an_address_of_another_connection_is_refused() -> None:
    with pytest.raises(NsmError) as caught:
        check(connection(dst_ip_addrs=("10.0.0.0/32",)), ["10.0.0.0/32"])
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert caught.value.field == "connection.context.ip_context"
    check(connection(dst_ip_addrs=("10.0.0.2/32",)), ["10.0.0.0/32", "10.0.0.0/24"])
