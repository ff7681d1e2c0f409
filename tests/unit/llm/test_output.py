"""From tokens to the text that a caller sees, on a real tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.llm.output import OutputText
from services.worker.llm.request import FinishReason, GenerationRequest, SamplingParams
from tests.support.llm_tokenizers import CORPUS, END, Library, byte_level, id_of

TOKENIZER = byte_level()
TEXT = "The mill 水車 turns; the miller sleeps."
IDS = TOKENIZER.encode(TEXT).ids
STOP = id_of(TOKENIZER, END)


def request(*, resume: tuple[int, ...] = (), params: SamplingParams | None = None) -> GenerationRequest:
    prompt = tuple(TOKENIZER.encode("Say: ").ids)
    return GenerationRequest(id="r", prompt=prompt, params=params or SamplingParams(), resume=resume)


def run(output: OutputText, ids: list[int], reason: FinishReason | None = None) -> str:
    """All of the text; the last token ends it with `reason`, or a stop string before it does."""
    text = ""
    for place, token in enumerate(ids):
        text += output.push(token, reason if place == len(ids) - 1 else None)
        if output.stop is not None:
            return text
    return text


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_string_ends_the_text(include: bool) -> None:
    params = SamplingParams(stop=("miller", "車 t"), include_stop_str_in_output=include)
    output = OutputText(Library(TOKENIZER), request(params=params))
    assert run(output, IDS) == ("The mill 水車 t" if include else "The mill 水")
    assert output.stop == "車 t"
    assert output.push(IDS[0]) + output.flush() == ""


def test_what_waited_comes_with_the_last_token() -> None:
    params = SamplingParams(stop=("sleeps. And more",))
    output = OutputText(Library(TOKENIZER), request(params=params))
    assert not run(output, IDS).endswith("sleeps.")
    output = OutputText(Library(TOKENIZER), request(params=params))
    assert run(output, IDS, "length") == TEXT
    assert output.stop is None


def test_an_incomplete_character_is_shown_at_the_end_only() -> None:
    ids = TOKENIZER.encode("龍").ids[:-1]
    output = OutputText(Library(TOKENIZER), request())
    assert run(output, ids, "length") == "\ufffd"
    output = OutputText(Library(TOKENIZER), request())
    assert run(output, ids) == ""
    assert output.flush() == "\ufffd"


def test_what_waited_for_a_stop_string_comes_before_what_waited_for_a_character() -> None:
    ids = [*TOKENIZER.encode("The mill").ids, *TOKENIZER.encode("龍").ids[:-1]]
    output = OutputText(Library(TOKENIZER), request(params=SamplingParams(stop=("mill!",))))
    assert run(output, ids, "length") == "The mill\ufffd"


@pytest.mark.parametrize(
    ("skip_special", "include", "shown"), [(True, False, ""), (False, False, ""), (False, True, END), (True, True, "")]
)
def test_the_token_that_stops_is_shown_on_demand(skip_special: bool, include: bool, shown: str) -> None:
    params = SamplingParams(skip_special_tokens=skip_special, include_stop_str_in_output=include)
    output = OutputText(Library(TOKENIZER, skip_special), request(params=params))
    assert run(output, [*IDS, STOP], "stop") == TEXT + shown


@pytest.mark.parametrize(("more", "text"), [(0, "The "), (1, "The mill 水車 turns; the ")])
def test_no_stop_string_counts_before_min_tokens(more: int, text: str) -> None:
    first = len(TOKENIZER.encode("The mill").ids)
    params = SamplingParams(stop=("mill",), min_tokens=first + more, max_tokens=100)
    output = OutputText(Library(TOKENIZER), request(params=params))
    assert (run(output, IDS), output.stop) == (text, "mill")


@settings(deadline=None)
@given(
    text=st.sampled_from(CORPUS), stop=st.sampled_from([(), ("e",), ("wheel",), (" m", "る"), ("👧",)]), data=st.data()
)
def test_a_resumed_request_goes_on_as_the_first_would(text: str, stop: tuple[str, ...], data: st.DataObject) -> None:
    ids = TOKENIZER.encode(text).ids
    params = SamplingParams(stop=stop, min_tokens=3, max_tokens=500)
    first = OutputText(Library(TOKENIZER), request(params=params))
    pieces = [first.push(token, "length" if place == len(ids) - 1 else None) for place, token in enumerate(ids)]
    split = data.draw(st.integers(0, len(ids) - 1))
    second = OutputText(Library(TOKENIZER), request(params=params, resume=tuple(ids[:split])))
    rest = ids[split:]
    assert [second.push(t, "length" if p == len(rest) - 1 else None) for p, t in enumerate(rest)] == pieces[split:]
    assert second.stop == first.stop
