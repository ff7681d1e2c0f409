"""Grammars: whatever tokens a model prefers, the text fits the schema."""

import json
import re

import pytest
import torch

from services.common.errors import InvalidArgument
from services.worker.llm.request import GenerationRequest, StructuredOutput
from services.worker.llm.sequence import Sequence
from services.worker.llm.structured import Grammars
from tests.support.llm_models import EOS, VOCABULARY, tokenizer

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"city": {"enum": ["Ulm", "Bonn"]}, "sunny": {"type": "boolean"}},
        "required": ["city", "sunny"],
        "additionalProperties": False,
    }
)


def sequence(name: str, output: tuple[int, ...] = ()) -> Sequence:
    request = GenerationRequest(id=name, prompt=(5,))
    return Sequence(request=request, number=0, limit=99, end_ids=frozenset({EOS}), tokens=[5, *output])


def grammars() -> Grammars:
    return Grammars(tokenizer(), VOCABULARY + 30, frozenset({EOS}))  # padded, as many models' vocabularies are


def walk(made: Grammars, one: Sequence, seed: int) -> None:
    """Draws among the allowed tokens until the end token."""
    random = torch.Generator().manual_seed(seed)
    while one.tokens[-1] != EOS:
        assert one.output_length < 300
        allowed = made.allowed([one], VOCABULARY + 30)
        assert allowed is not None and not allowed[0, VOCABULARY:].any()
        choices = allowed[0].nonzero().flatten()
        one.tokens.append(int(choices[torch.randint(len(choices), (1,), generator=random)]))


@pytest.mark.parametrize("seed", range(5))
def test_text_fits_the_schema(seed: int) -> None:
    made, one = grammars(), sequence("a")
    made.admit("a", StructuredOutput(json=SCHEMA))
    walk(made, one, seed)
    value = json.loads(tokenizer().decode(one.output_tokens))
    assert value["city"] in {"Ulm", "Bonn"} and isinstance(value["sunny"], bool)


def test_a_resumed_sequence_goes_on_where_it_was() -> None:
    made, one = grammars(), sequence("a")
    made.admit("a", StructuredOutput(json=SCHEMA))
    walk(made, one, 3)
    half = tuple(one.output_tokens[:7])
    first, second = grammars(), grammars()
    for each in (first, second):
        each.admit("b", StructuredOutput(json=SCHEMA))
    first.allowed([sequence("b", half[:4])], VOCABULARY)
    ours, theirs = (each.allowed([sequence("b", half)], VOCABULARY) for each in (first, second))
    assert ours is not None and theirs is not None and torch.equal(ours, theirs)


def test_only_those_that_asked_are_bound() -> None:
    made = grammars()
    assert made.allowed([sequence("free")], VOCABULARY) is None
    made.admit("bound", StructuredOutput(json_object=True))
    allowed = made.allowed([sequence("free"), sequence("bound")], VOCABULARY)
    assert allowed is not None and allowed[0].all() and not allowed[1].all()
    made.release("bound")
    assert made.allowed([sequence("bound")], VOCABULARY) is None


@pytest.mark.parametrize("seed", range(5))
def test_text_matches_the_expression_or_is_one_of_the_choices(seed: int) -> None:
    made = grammars()
    choice = ("yes", 'a "no"', "Größe\n", "yesterday")
    for name, wanted in (
        ("a", StructuredOutput(regex=r"[A-Z]{2}-[0-9]{3,5}( ok)?")),
        ("b", StructuredOutput(choice=choice)),
    ):
        one = sequence(name)
        made.admit(name, wanted)
        walk(made, one, seed)
        text = tokenizer().decode(one.output_tokens)
        assert re.fullmatch(wanted.regex, text) if wanted.regex is not None else text in choice


def test_what_is_no_expression_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"(?s)structured output: .*expected a regular expression"):
        grammars().admit("a", StructuredOutput(regex="(("))


@pytest.mark.parametrize("schema", ["no json", '{"type": "banana"}', "[1]"])
def test_what_is_no_schema_is_refused(schema: str) -> None:
    with pytest.raises(InvalidArgument, match=r"structured output: .*expected a JSON Schema"):
        grammars().admit("a", StructuredOutput(json=schema))
