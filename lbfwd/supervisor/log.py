"""Logging: structlog, human-readable on a terminal, one JSON object a line otherwise.

Event names are stable (snake_case) and stand for one fact each; what varies is in the keys.
docs/events.md lists them. Secrets are never passed to the log: the configuration's hash_key hides
itself.
"""

import sys
from typing import Any

import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict

Log = structlog.typing.FilteringBoundLogger


def configure() -> None:
    """Log to stderr from now on. Timestamps are ISO 8601, UTC."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderers(terminal),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def get() -> Log:
    """Return the logger."""
    log: Log = structlog.get_logger()
    return log


def _renderers(terminal: bool) -> list[Any]:
    # Tracebacks are without local variables, structlog's default: the hash key may be among them.
    if terminal:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(exception_formatter=plain, sort_keys=False)]
    return [
        ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        _head_first,
        structlog.processors.JSONRenderer(default=str),
    ]


def _head_first(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Put what every line has where a reader looks first."""
    head = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return {**head, **event}
