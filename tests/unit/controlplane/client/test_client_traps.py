"""What a client must send again although the answer has something else in its place."""

from dataclasses import replace

import pytest

from controlplane.client.wish import Wish
from nsm.model.mechanism import INODE_URL, INTERFACE_NAME, KERNEL, LOCAL, Mechanism

WISH = Wish("nsc", "nsc-0", "icmp-responder", "nsm-1", "file:///run/netns/blue")


@pytest.mark.parametrize("url", ["file:///proc/self/fd/9", "inode://4/5", ""])
def test_the_mechanism_of_a_refresh_has_our_namespace_whatever_the_answer_had(url: str) -> None:
    agreed = Mechanism(LOCAL, KERNEL, {INODE_URL: url, INTERFACE_NAME: "nsm-1"})
    mechanism = WISH.ours(replace(WISH.first(), mechanism=agreed)).mechanism
    assert mechanism is not None
    assert mechanism.parameters == {INODE_URL: "file:///run/netns/blue", INTERFACE_NAME: "nsm-1"}
