"""Reading the documentation as its tests do: pages, links, and the commands that stand in code."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ASSIGNMENT = re.compile(r"[A-Z_]+=")
_SEPARATORS = {"&&", "||", "|", ";", "&"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command line. Those in prose may be cut short; those in blocks are meant to be typed."""

    page: str
    words: tuple[str, ...]
    typed: bool


def pages() -> list[Path]:
    """All that a reader may open, relative to the root."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
    return sorted(path.relative_to(ROOT) for path in found)


def links(page: Path) -> list[str]:
    """Targets within the repository, code left out."""
    text = _INLINE.sub("", _FENCE.sub("", (ROOT / page).read_text()))
    return [target for target in _LINK.findall(text) if "://" not in target and not target.startswith("mailto:")]


def anchors(page: Path) -> set[str]:
    """What headings are called in addresses: lower case, words joined by hyphens."""
    text = _FENCE.sub("", (ROOT / page).read_text())
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in _HEADING.findall(text)
    }


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for name, text in _FENCE.findall((ROOT / page).read_text()) if name == language]


def commands(page: Path) -> Iterator[Command]:
    """Every command of shell blocks, and every `headrace …` in prose."""
    for block in blocks(page, "sh"):
        open_line = ""
        for line in block.replace("\\\n", " ").splitlines():
            open_line += line + "\n"
            try:
                split = list(_split(open_line))
            except ValueError:  # a quotation goes on in the next line
                continue
            open_line = ""
            for words in split:
                yield Command(str(page), words, typed=True)
        assert not open_line, f"{page}: a quotation is not closed: {open_line}"
    for code in _INLINE.findall(_FENCE.sub("", (ROOT / page).read_text())):
        if code.startswith("headrace "):
            for words in _split(code.replace("\n", " ")):
                yield Command(str(page), words, typed=False)


def _split(line: str) -> Iterator[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in _SEPARATORS:
            words.append(word)
            continue
        while words and _ASSIGNMENT.match(words[0]):
            del words[0]
        if words:
            yield tuple(words[: words.index(">")] if ">" in words else words)
        words = []
