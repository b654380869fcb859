from dataclasses import replace

import pytest

from nsm.model.connection import Connection, State
from nsm.model.context import ConnectionContext, IpContext
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import KERNEL, LOCAL, Mechanism
from nsm.session.begin import BeginTable, EntryState, merge, reselect

FIRST = Connection(id="a", network_service="ns")


def established(table: BeginTable, connection: Connection = FIRST) -> Connection:
    table.on_request(connection.id, connection)
    agreed = table.on_success(connection.id, connection)
    assert agreed is not None
    return agreed


def context(address: str, **extra: str) -> ConnectionContext:
    return ConnectionContext(ip_context=IpContext(src_ip_addrs=(address,)), extra_context=extra)


def test_first_success_makes_it_established_and_up() -> None:
    table = BeginTable()
    admission = table.on_request("a", FIRST)
    assert admission == (FIRST, False, False)
    assert table.state("a") is EntryState.NEW
    agreed = table.on_success("a", replace(FIRST, state=State.RESELECT_REQUESTED))
    assert agreed == FIRST
    assert (table.state("a"), table.connections()) == (EntryState.ESTABLISHED, (FIRST,))


def test_first_failure_is_forgotten_and_that_of_a_refresh_keeps_the_connection() -> None:
    table = BeginTable()
    table.on_request("a", FIRST)
    table.on_failure("a")
    assert (len(table), table.state("a")) == (0, EntryState.CLOSED)
    established(table)
    assert table.on_request("a", FIRST).is_refresh
    table.on_failure("a")
    assert table.stored("a") == FIRST


def test_reselect_on_an_established_id_closes_first_and_then_is_new() -> None:
    table = BeginTable()
    established(table)
    admission = table.on_request("a", replace(FIRST, state=State.RESELECT_REQUESTED))
    assert (admission.must_close_first, admission.is_refresh) == (True, False)
    assert table.stored("a") == FIRST
    table.on_failure("a")
    assert table.stored("a") is None


def test_reselect_of_an_unknown_id_is_simply_new() -> None:
    admission = BeginTable().on_request("a", replace(FIRST, state=State.RESELECT_REQUESTED))
    assert (admission.must_close_first, admission.is_refresh) == (False, False)


def test_a_clients_entry_outlives_a_failed_reselect() -> None:
    table = BeginTable(client=True)
    established(table)
    assert table.on_request("a", replace(FIRST, state=State.RESELECT_REQUESTED)).must_close_first
    table.on_failure("a")
    assert table.stored("a") == FIRST


def test_close_gives_the_stored_connection_once() -> None:
    table = BeginTable()
    agreed = established(table)
    assert table.on_close("a") == agreed
    assert table.on_close("a") is None
    assert table.on_close("never") is None
    table.on_request("b", FIRST)
    assert table.on_close("b") is None


def test_a_success_after_close_says_so() -> None:
    table = BeginTable()
    table.on_request("a", FIRST)
    table.on_failure("a")
    assert table.on_success("a", FIRST) is None


def test_an_empty_id_and_a_full_table_are_refused() -> None:
    table = BeginTable(limit=1)
    with pytest.raises(NsmError) as empty:
        table.on_request("", FIRST)
    assert empty.value.field == "connection.id"
    established(table)
    with pytest.raises(NsmError) as full:
        table.on_request("b", FIRST)
    assert full.value.code is Code.RESOURCE_EXHAUSTED
    assert table.on_request("a", FIRST).is_refresh


def test_a_client_asks_for_its_changes_on_top_of_what_became_of_the_connection() -> None:
    returned = replace(
        FIRST, context=context("10.0.0.1/32", kept="1", gone="1"), network_service_endpoint_name="nse-1"
    )
    current = replace(returned, context=context("10.0.0.9/32", kept="1", gone="1", healed="1"))
    current = replace(current, network_service_endpoint_name="nse-2")
    asked = replace(
        returned, context=replace(returned.ctx, mtu=1400, extra_context={"kept": "2", "new": "1"})
    )
    merged = merge(returned, asked, current)
    assert merged.network_service_endpoint_name == "nse-2"
    assert merged.ctx.mtu == 1400
    assert merged.ip.src_ip_addrs == ("10.0.0.1/32",)
    assert merged.ctx.extra_context == {"kept": "2", "new": "1", "healed": "1"}


def test_a_client_that_changes_nothing_asks_for_the_current_connection() -> None:
    current = replace(FIRST, context=context("10.0.0.9/32"))
    assert merge(FIRST, FIRST, current) == current
    assert merge(FIRST, replace(FIRST, network_service_endpoint_name="x"), current) == replace(
        current, network_service_endpoint_name="x"
    )
    assert merge(None, FIRST, None) == FIRST


def test_events_of_our_own_do_not_count_as_returned() -> None:
    table = BeginTable(client=True)
    established(table)
    healed = replace(FIRST, network_service_endpoint_name="nse-2")
    table.on_success("a", healed, event=True)
    assert table.on_request("a", FIRST).connection == healed


def test_reselect_keeps_path_and_context_only() -> None:
    connection = replace(
        FIRST,
        mechanism=Mechanism(LOCAL, KERNEL),
        network_service_endpoint_name="nse",
        context=context("10.0.0.1/32"),
    )
    asked = reselect(connection)
    assert (asked.mechanism, asked.network_service_endpoint_name) == (None, "")
    assert (asked.state, asked.context) == (State.RESELECT_REQUESTED, connection.context)
