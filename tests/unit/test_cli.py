"""The command line without a server: what scripts rely on when nothing is there."""

from contextlib import closing
from pathlib import Path
from socket import socket

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from headrace.cli.console import exit_codes
from headrace.cli.inference import _array
from headrace.cli.main import app
from headrace.cli.text import Pace
from headrace.client.errors import HeadraceError, InternalError, InvalidArgumentError, NotFoundError, UnavailableError

COMMANDS = {
    "up",
    "serve",
    "push",
    "models",
    "alias",
    "delete",
    "gc",
    "infer",
    "generate",
    "chat",
    "status",
    "scale",
    "import-triton",
}


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert all(f" {command} " in result.output for command in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str) -> None:
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    ("command", "option"), [(["models"], "--registry"), (["status", "--once"], "--address")], ids=["models", "status"]
)
def test_a_server_that_is_not_there_is_exit_code_3_and_says_how_to_start_one(
    command: list[str], option: str, nowhere: str
) -> None:
    result = CliRunner().invoke(app, [*command, option, nowhere])
    assert result.exit_code == 3
    assert "headrace up" in result.stderr
    assert result.stdout == ""


def test_a_file_that_is_no_model_is_exit_code_2(tmp_path: Path, nowhere: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    result = CliRunner().invoke(app, ["push", "m", str(tmp_path / "model.onnx"), "--registry", nowhere])
    assert result.exit_code == 2
    assert "model.onnx" in result.stderr


def test_a_wrong_option_is_exit_code_2() -> None:
    assert CliRunner().invoke(app, ["status", "--no-such-option"]).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgumentError("expected [a, b]"), 2),
        (NotFoundError("no [x]"), 2),
        (UnavailableError("away"), 3),
        (InternalError("[bold]"), 1),
    ],
)
def test_errors_are_shown_whole_and_have_their_exit_code(
    error: HeadraceError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left, exit_codes():
        raise error
    assert left.value.exit_code == code
    assert f"{error.code} {error}" in capsys.readouterr().err


def test_inputs_are_read_from_json_and_from_files_but_never_unpickled(tmp_path: Path) -> None:
    assert _array("x", "[[1, 2]]", "float32").dtype == np.float32
    np.save(tmp_path / "x.npy", np.arange(3))
    assert _array("x", f"@{tmp_path / 'x.npy'}", "int64").tolist() == [0, 1, 2]
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    for value in ("[[1, 2", "[[1], [2, 3]]", "@/no/such.npy", f"@{tmp_path / 'pickled.npy'}"):
        with pytest.raises(InvalidArgumentError, match="--input x:"):
            _array("x", value, "float32")


@pytest.mark.parametrize("said", ["6..0", "..3", "many", "-1", "0..0"])
def test_up_says_how_workers_are_counted(said: str) -> None:
    result = CliRunner().invoke(app, ["up", f"--workers={said}"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "expected a number such as 2, or a range such as 0..6" in result.output


@pytest.mark.parametrize(
    ("pieces", "tokens", "summary"),
    [
        ([(10.1, 1), (10.6, 1), (11.1, 1)], 3, "3 tokens, the first after 100 ms, then 2.0 tokens/s"),
        ([(10.1, 8), (10.6, 4)], 12, "12 tokens, the first after 100 ms, then 8.0 tokens/s"),
        ([(10.1, 30), (10.1001, 0)], 30, "30 tokens at once, after 100 ms"),
        ([(10.1, 0), (12.1, 0)], 5, "5 tokens, the first after 100 ms, then 2.0 tokens/s"),
        ([(10.1, 5)], 5, "5 tokens at once, after 100 ms"),
        ([], 0, "0 tokens"),
    ],
)
def test_the_pace_of_a_text_is_that_of_its_later_pieces(
    pieces: list[tuple[float, int]], tokens: int, summary: str
) -> None:
    pace = Pace(began=10.0)
    for now, count in pieces:
        pace.came(now, count)
    assert pace.summary(tokens) == summary
