"""Two views of one time: a token's ``exp`` in whole seconds, its expiry beside it finer."""

import base64
import json
import time

from nsm.identity.tokens import PathTokens
from tests.fakes.identity import FakeAuthority


def test_exp_is_whole_seconds_and_never_later_than_asked() -> None:
    now = int(time.time()) + 0.75
    tokens = PathTokens(FakeAuthority().identity("/client/c"), max_lifetime=60, clock=lambda: now)
    token = tokens.token("spiffe://example.org/m")
    payload = token.text.split(".")[1]
    exp = json.loads(base64.urlsafe_b64decode(payload + "=="))["exp"]
    assert (type(exp), exp) == (int, int(now) + 60)
    assert token.expires == exp * 10**9
