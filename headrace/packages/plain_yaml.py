"""YAML as people write it by hand. A few lines with aliases of aliases stand for billions of values, and a text of
brackets only nests deeper than any reader's stack: neither is taken."""

from typing import Any

import yaml

MOST_CHARACTERS = 1024 * 1024
MOST_DEPTH = 32
_OPENING = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_CLOSING = (yaml.SequenceEndEvent, yaml.MappingEndEvent)


def plain(text: str) -> str:
    """The same text, looked through by PyYAML's parser, which keeps its place in a list and recurses nowhere.

    Raises:
        yaml.YAMLError: it is no YAML, too long, too deep, or has aliases; with the place where that is known.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"{len(text):,} characters; at most {MOST_CHARACTERS:,} are taken")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            problem = f"aliases are not taken; write out what '*{event.anchor}' stands for"
            raise _at(event, problem)
        depth += isinstance(event, _OPENING) - isinstance(event, _CLOSING)
        if depth > MOST_DEPTH:
            problem = f"nested deeper than {MOST_DEPTH} levels"
            raise _at(event, problem)
    return text


def _at(event: yaml.Event, problem: str) -> yaml.YAMLError:
    mark: Any = event.start_mark  # of whichever scanner PyYAML was built with
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
