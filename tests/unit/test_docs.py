"""The documentation does not rot: its links lead somewhere, and what it tells to type exists."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from headrace.cli.main import app
from tests.support.docs import ROOT, Command, anchors, blocks, commands, links, pages

PAGES = [str(page) for page in pages()]
CLI: Any = typer.main.get_command(app)
COMMANDS = sorted({command for page in pages() for command in commands(page)}, key=str)
HEADRACE = [command for command in COMMANDS if command.words[0] == "headrace"]
MAKEFILE = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
TARGETS = set(re.findall(r"^([\w./-]+):", MAKEFILE, re.MULTILINE))


def name(command: Command) -> str:
    """For pytest's list."""
    return f"{command.page}: {' '.join(command.words)}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in links(Path(page)):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{target}: there is no {file}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.resolve().relative_to(ROOT)), f"{target}: no such heading"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    missing = [page for page in PAGES if page.startswith("docs/") and f"({page[5:]})" not in index]
    assert missing == ["docs/README.md"], "a page that nobody finds: put it into docs/README.md"


@pytest.mark.parametrize("command", HEADRACE, ids=name)
def test_headrace_command_lines_parse(command: Command) -> None:
    # What a reader puts in himself stands in capitals; as a number it fits wherever it may stand.
    words = ["1" if re.fullmatch(r"[A-Z]+", word) else word for word in command.words[1:]]
    found: Any = CLI
    while hasattr(found, "commands") and words and not words[0].startswith("…"):
        words = without_options(found, words)
        assert words[0] in found.commands, f"there is no command {words[0]}"
        found, words = found.commands[words[0]], words[1:]
    if command.typed:
        found.make_context("headrace", list(words))
    else:  # in prose a command may stand without its arguments; what is there must exist
        given = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert given <= set(options(found)) | {"--help"}


def options(command: Any) -> dict[str, Any]:
    """Every spelling of a command's options."""
    return {name: each for each in command.params for name in [*each.opts, *each.secondary_opts] if name[0] == "-"}


def without_options(group: Any, words: list[str]) -> list[str]:
    """What is left behind the options that stand before the command."""
    while words[0].startswith("-"):
        option, _, value = words[0].partition("=")
        assert option in options(group), f"there is no option {option}"
        words = words[1 if value or options(group)[option].is_flag else 2 :]
        if not words:
            return ["up"]  # `headrace --install-completion` is whole
    return words


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.typed], ids=name)
def test_files_and_targets_that_are_run_exist(command: Command) -> None:
    program, *arguments = command.words
    if program.endswith("make"):
        assert set(arguments) - {"-C"} <= TARGETS
    elif program in {"sh", "python", "node"} and not arguments[0].startswith("-"):
        assert (ROOT / arguments[0]).exists()
    elif arguments[:1] == ["-m"] and arguments[1].split(".")[0] in {"benchmarks", "services", "tools"}:
        module = ROOT / Path(*arguments[1].split("."))
        assert module.with_suffix(".py").exists() or (module / "__main__.py").exists()


@pytest.mark.parametrize("page", PAGES)
def test_python_is_python_and_imports_what_there_is(page: str) -> None:
    for block in blocks(Path(page), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("headrace"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def messages() -> set[str]:
    """Every string of the sources; what is put into it is "…"."""
    found = set()
    for folder in ("headrace", "services"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(re.sub(r"%[a-z.\d]*[sdfr]", "…", node.value))  # as logging has it
                elif isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    found.add("".join(map(str, parts)))
    return found


def test_quoted_messages_stand_in_the_sources() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = re.findall(r"^> `(.+)`$", page, re.MULTILINE)
    assert len(quoted) == page.count("\n> ") > 40
    known = "\n".join(messages())
    # A quote may stop early, and may leave out what the sources say between two parts: "…" matches within a line.
    gone = [quote for quote in quoted if not re.search(".*?".join(map(re.escape, quote.split("…"))), known)]
    assert gone == []
