"""What a daemon's log shows, and what it never shows."""

import json
import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from nsm.service.logs import REDACTED, redact, setup_logs

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmU6Ly94In0.c2lnbmF0dXJlc2ln"
PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    root, level = list(logging.getLogger().handlers), logging.getLogger().level
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = root
    logging.getLogger().setLevel(level)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_without_a_terminal_an_event_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logs("INFO", daemon="nsm-registry")
    structlog.get_logger().info("ready", addresses=("unix:///a",))
    (event,) = lines(capsys)
    assert event["event"] == "ready"
    assert event["level"] == "info"
    assert event["daemon"] == "nsm-registry"
    assert event["addresses"] == ["unix:///a"]
    assert event["timestamp"].endswith("Z")


def test_the_format_can_be_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSM_LOG_FORMAT", "console")
    setup_logs("INFO")
    structlog.get_logger().info("ready", a=1)
    shown = capsys.readouterr().out
    assert "ready" in shown
    assert not shown.startswith("{")


@pytest.mark.parametrize(
    ("event", "secret"),
    [
        ({"token": "abc"}, "abc"),
        ({"nsm-client-token": "abc"}, "abc"),
        ({"peer": {"private_key": b"abc", "name": "x"}}, "abc"),
        ({"segments": [{"name": "nsc", "token": "abc"}]}, "abc"),
        ({"event": f"call with {JWT} failed"}, JWT),
        ({"error": ValueError(f"bad {JWT}")}, JWT),
        ({"exception": PEM}, "MIGHAgEAMBMG"),
        ({"key": b"0123"}, "0123"),
    ],
)
def test_no_secret_is_rendered_wherever_it_hides(event: dict[str, Any], secret: str) -> None:
    assert secret not in str(redact(None, "info", dict(event)))


def test_what_is_no_secret_stays_as_it_is() -> None:
    event = {
        "event": "refresh",
        "max_token_lifetime": 600.0,
        "labels": {"app": "web"},
        "names": ["a"],
        "up": True,
    }
    assert redact(None, "info", dict(event)) == event
    assert redact(None, "info", {"token": "x"}) == {"token": REDACTED}


def test_an_exception_is_logged_with_its_trace_and_without_its_token(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup_logs("INFO")
    try:
        int(JWT)
    except ValueError:
        structlog.get_logger().exception("handler failed")
    (event,) = lines(capsys)
    assert "ValueError" in event["exception"]
    assert JWT not in event["exception"]


def test_usr1_lowers_the_level_and_usr2_restores_it(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logs("WARN")
    logger = structlog.get_logger().bind(a=1)
    logger.info("first")
    os.kill(os.getpid(), signal.SIGUSR1)
    logger.info("second")
    logger.debug("third")
    os.kill(os.getpid(), signal.SIGUSR1)
    logger.debug("fourth")
    os.kill(os.getpid(), signal.SIGUSR2)
    logger.info("fifth")
    logger.warning("sixth")
    assert [event["event"] for event in lines(capsys)] == ["second", "fourth", "sixth"]


def test_more_steps_than_there_are_levels_do_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logs("DEBUG")
    for _ in range(4):
        os.kill(os.getpid(), signal.SIGUSR1)
    structlog.get_logger().debug("still here")
    assert [event["event"] for event in lines(capsys)] == ["still here"]


def test_what_libraries_log_is_rendered_and_redacted_alike(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logs("INFO")
    logging.getLogger("asyncio").error("task failed with %s", JWT)
    (event,) = lines(capsys)
    assert event["logger"] == "asyncio"
    assert event["event"] == f"task failed with {REDACTED}"
