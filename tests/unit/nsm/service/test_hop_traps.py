"""What callers send that a hop must not take for what it looks like."""

import pytest

from nsm.model.connection import Connection, NetworkServiceRequest
from nsm.model.errors import Code, NsmError
from nsm.model.path import Path, PathSegment
from tests.fakes.hops import FakeRole, call_of, first, hop


@pytest.mark.parametrize("index", [0, 1])
async def test_a_caller_of_our_own_name_is_refused_by_field(index: int) -> None:
    role = FakeRole()
    server = hop("nse", role)
    names = ("client", "nse") if index else ("nse",)
    segments = tuple(PathSegment(name=name, id=f"id of {name}") for name in names)
    asked = Connection(id=segments[index].id, network_service="ns", path=Path(index, segments))
    with pytest.raises(NsmError, match="names are unique on a path") as caught:
        await server.request(NetworkServiceRequest(asked), call_of().call)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.field == f"connection.path.path_segments[{index}].name"
    assert (role.requests, server.connections()) == ([], ())


async def test_a_connection_is_the_same_whatever_transport_connection_it_is_refreshed_on() -> None:
    role = FakeRole()
    server = hop("nse", role)
    answer = await server.request(NetworkServiceRequest(first()), call_of().call)
    other = call_of()
    other.peer = call_of("client").peer
    again = await server.request(NetworkServiceRequest(answer), other.call)
    assert [incoming.is_refresh for incoming in role.requests] == [False, True]
    assert [s.id for s in again.route.segments] == [s.id for s in answer.route.segments]
