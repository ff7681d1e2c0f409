"""Structured logs on stderr: JSON lines for machines, colours for a terminal. Everything goes through stdlib logging,
so that libraries' records look like ours."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

import structlog
from structlog.stdlib import BoundLogger
from structlog.types import EventDict, Processor, WrappedLogger

from services.common.errors import InvalidArgument

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
# Libraries that tell of each request: at DEBUG only.
_TALKATIVE = ("httpx2",)


def get_logger(name: str, **bound: object) -> BoundLogger:
    """A structured logger over `logging.getLogger(name)`; `bound` (say, trace_id) is on every line."""
    processors: list[Processor] = [
        structlog.stdlib.filter_by_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    wrapped = structlog.wrap_logger(logging.getLogger(name), processors, BoundLogger)
    return cast(BoundLogger, wrapped.bind(**bound))


@contextmanager
def logging_to_stderr(
    service: str, instance: str, level: str, *, stream: TextIO | None = None, terminal: bool | None = None
) -> Iterator[None]:
    """Routes all logging to `stream` (stderr) until left; then the root logger is as it was.

    Args:
        terminal: render for people; None: if the stream is a terminal.

    Raises:
        InvalidArgument: no such level.
    """
    if level.upper() not in LEVELS:
        raise InvalidArgument(f"log level '{level}' does not exist; HEADRACE_LOG_LEVEL takes {', '.join(LEVELS)}")
    out = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(service, instance, out.isatty() if terminal is None else terminal))
    root = logging.getLogger()
    before, handlers = root.level, list(root.handlers)
    root.handlers = [handler]
    root.setLevel(level.upper())
    if not root.isEnabledFor(logging.DEBUG):
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(before)
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.NOTSET)


def _formatter(service: str, instance: str, terminal: bool) -> logging.Formatter:
    def identify(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {**event, "service": service, "instance": instance}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if terminal
        else [identify, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    return structlog.stdlib.ProcessorFormatter(
        # `extra={"trace_id": …}` of plain stdlib calls.
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[*shared, structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
