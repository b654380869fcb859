"""What an endpoint is offered and must not take."""

import pytest

from controlplane.endpoint.mechanism import choose
from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import KERNEL, LOCAL, MEMIF, Mechanism


def test_memif_is_left_to_endpoints_that_have_a_memif_socket() -> None:
    """A forwarder would knock at that socket, hang up, and connect afterwards."""
    memif, kernel = Mechanism(LOCAL, MEMIF, {"inodeURL": ""}), Mechanism(LOCAL, KERNEL)
    assert choose(Connection(id="c"), (memif, kernel)) == kernel
    with pytest.raises(NsmError, match="got 'LOCAL MEMIF'") as caught:
        choose(Connection(id="c"), (memif,))
    assert caught.value.code is Code.INVALID_ARGUMENT
