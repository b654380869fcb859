"""Which refusals a soak takes for a Go component's own fault."""

import pytest

from perf.soak.churn import is_upstreams


@pytest.mark.parametrize(
    ("error", "is_theirs"),
    [
        (
            "UNKNOWN: failed to send a file /proc/thread-self/ns/net (the file probably doesn't exist):"
            " close /proc/thread-self/ns/net: file already closed",
            True,
        ),
        (
            "UNKNOWN: 0. An error during select forwarder forwarder-n1 --> failed to send a file /proc/27194/fd/84"
            " (the file probably doesn't exist): close /proc/27194/fd/84: file already closed",
            True,
        ),
        ("UNKNOWN: find server failed to send a response: context canceled", True),
        ("UNKNOWN: failed to send a file /x (the file probably doesn't exist): open /x: no such file", False),
        ("UNAVAILABLE: connection.network_service: nobody listens", False),
        ("", False),
    ],
)
def test_faults_of_go_components(error: str, is_theirs: bool) -> None:
    assert is_upstreams(error) == is_theirs
