"""Structured logs of every daemon: one line an event on stdout, JSON unless a person is watching.

``NSM_LOG_FORMAT=json|console`` overrides the choice. SIGUSR1 lowers the level one step (INFO, DEBUG, TRACE),
SIGUSR2 restores the configured one (reference §5). Tokens and keys are removed whatever an event carries.
"""

import logging
import os
import re
import signal
import sys
from collections.abc import Mapping
from typing import Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS: Final = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "FATAL": 50, "PANIC": 50}
REDACTED: Final = "(redacted)"
_SECRET_NAME: Final = re.compile(
    r"token|private|secret|passw|authorization|credential|svid_key|psk", re.IGNORECASE
)
_SECRET_TEXT: Final = re.compile(
    r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"  # a JWT: base64url of '{"', two dots
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)


class _Threshold:
    """The level below which events are dropped; changed by signals while the process runs."""

    def __init__(self, configured: int) -> None:
        self.configured = configured
        self.current = configured

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """The first processor: drop what is below the level."""
        if _NUMBERS.get(method, LEVELS["INFO"]) < self.current:
            raise structlog.DropEvent
        return event

    def lower(self) -> None:
        """One step more talkative."""
        self.current = max((level for level in LEVELS.values() if level < self.current), default=self.current)

    def restore(self) -> None:
        """As configured."""
        self.current = self.configured


class _Forward(logging.Handler):
    """Hands what libraries log through ``logging`` to structlog: rendered and redacted alike."""

    def emit(self, record: logging.LogRecord) -> None:
        """One library record as one event."""
        logger = structlog.get_logger()
        method = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(logger, method)(record.getMessage(), logger=record.name, exc_info=record.exc_info)


_NUMBERS: Final = {
    "debug": LEVELS["DEBUG"],
    "info": LEVELS["INFO"],
    "warning": LEVELS["WARN"],
    "warn": LEVELS["WARN"],
    "error": LEVELS["ERROR"],
    "exception": LEVELS["ERROR"],
    "critical": LEVELS["FATAL"],
}


def setup_logs(level: str = "INFO", *, daemon: str = "") -> None:
    """Configure structlog and the level signals of this process: once, in the main thread."""
    threshold = _Threshold(LEVELS[level])
    context = structlog.contextvars.merge_contextvars
    structlog.configure(
        processors=[threshold, context, _name(daemon), structlog.processors.add_log_level, *_renderers()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)
    signal.signal(signal.SIGUSR1, lambda _number, _frame: threshold.lower())
    signal.signal(signal.SIGUSR2, lambda _number, _frame: threshold.restore())


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace values of secret names and texts that are tokens or private keys, at any depth."""
    return {key: _clean(key, value) for key, value in event.items()}


def _renderers() -> list[Processor]:
    """Time, redaction and rendering; exceptions become text first so that redaction sees them too."""
    wanted = os.environ.get("NSM_LOG_FORMAT", "")
    time = structlog.processors.TimeStamper(fmt="iso", utc=True)
    trace = structlog.processors.format_exc_info
    if wanted == "console" or (wanted != "json" and sys.stdout.isatty()):
        return [time, trace, redact, structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
    return [time, trace, redact, structlog.processors.JSONRenderer(default=str)]


def _name(daemon: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if daemon:
            event.setdefault("daemon", daemon)
        return event

    return add


def _clean(name: object, value: object) -> object:
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(name, str) and _SECRET_NAME.search(name):
        return REDACTED
    if isinstance(value, str):
        return _SECRET_TEXT.sub(REDACTED, value)
    if isinstance(value, Mapping):
        return {key: _clean(key, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(None, inner) for inner in value]
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    return _SECRET_TEXT.sub(REDACTED, str(value))
