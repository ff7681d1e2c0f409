"""Log lines: JSON for machines, with the trace id; stdlib and structured records look alike."""

import io
import json
import logging
from typing import Any

import pytest

from services.common.errors import InvalidArgument
from services.common.telemetry.logs import get_logger, logging_to_stderr


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_both_ways_of_logging_give_the_same_line() -> None:
    stream = io.StringIO()
    with logging_to_stderr("worker", "w1", "INFO", stream=stream):
        get_logger("a.b", trace_id="f" * 32).info("loaded %s", "digits", rows=3)
        logging.getLogger("a.b").info("loaded %s", "digits", extra={"trace_id": "f" * 32, "rows": 3})
        get_logger("a.b").debug("not at this level")
    structured, plain = lines(stream)
    structured.pop("timestamp"), plain.pop("timestamp")
    assert structured == plain
    assert structured == {
        "event": "loaded digits",
        "trace_id": "f" * 32,
        "rows": 3,
        "level": "info",
        "logger": "a.b",
        "service": "worker",
        "instance": "w1",
    }


def test_exceptions_are_one_line_of_json() -> None:
    stream = io.StringIO()
    with logging_to_stderr("worker", "w1", "INFO", stream=stream):
        try:
            int("bad shape")
        except ValueError:
            get_logger("x").exception("failed")
            logging.getLogger("x").exception("failed")
    for line in lines(stream):
        assert "ValueError: invalid literal" in line["exception"]


def test_terminal_gets_no_json() -> None:
    stream = io.StringIO()
    with logging_to_stderr("worker", "w1", "INFO", stream=stream, terminal=True):
        get_logger("x").warning("look here", trace_id="ab")
    assert "look here" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_unknown_level_is_refused_with_the_choices() -> None:
    with (
        pytest.raises(InvalidArgument, match=r"LOUD.*HEADRACE_LOG_LEVEL takes DEBUG"),
        logging_to_stderr("s", "i", "LOUD"),
    ):
        pass


def test_root_logger_is_left_as_it_was() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    with logging_to_stderr("s", "i", "DEBUG", stream=io.StringIO()):
        assert root.level == logging.DEBUG
    assert (list(root.handlers), root.level) == before
