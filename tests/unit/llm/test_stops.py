"""Stop strings: none is let out in part, and it does not matter how the text is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.llm.stops import StopStrings

LETTERS = st.text("ab", max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3).map(tuple)


def first_stop(text: str, stops: tuple[str, ...]) -> tuple[int, str] | None:
    """The plain definition: look at every end, in order, for the longest stop string that ends there."""
    for end in range(len(text) + 1):
        there = [stop for stop in stops if text[:end].endswith(stop)]
        if there:
            return end, max(there, key=len)
    return None


@given(pieces=st.lists(LETTERS, max_size=6), stops=STOPS, include=st.booleans())
def test_the_text_ends_at_the_first_stop_string_however_it_is_cut(
    pieces: list[str], stops: tuple[str, ...], include: bool
) -> None:
    stream = StopStrings(stops, include)
    out = "".join(stream.push(piece) for piece in pieces) + stream.flush()
    text = "".join(pieces)
    match first_stop(text, stops):
        case None:
            assert (out, stream.found) == (text, None)
        case end, stop:
            assert (out, stream.found) == (text[: end if include else end - len(stop)], stop)


@given(text=LETTERS, more=LETTERS, stops=STOPS)
def test_no_part_of_what_may_become_a_stop_string_is_let_out(text: str, more: str, stops: tuple[str, ...]) -> None:
    stream = StopStrings(stops)
    out = "".join(map(stream.push, text))
    found = first_stop(text + more, stops)
    if found is not None:
        end, stop = found
        assert len(out) <= end - len(stop)


@given(text=LETTERS, stops=STOPS)
def test_no_more_is_held_back_than_may_become_a_stop_string(text: str, stops: tuple[str, ...]) -> None:
    stream = StopStrings(stops)
    out = stream.push(text)
    if stream.found is None and out != text:
        assert any(stop.startswith(text[len(out) :]) for stop in stops)


@given(before=LETTERS, text=LETTERS, stops=STOPS)
def test_what_is_complete_before_stops_count_is_let_through(before: str, text: str, stops: tuple[str, ...]) -> None:
    stream = StopStrings(stops)
    out = "".join(stream.push(letter, counts=False) for letter in before)
    out += "".join(map(stream.push, text)) + stream.flush()
    ends = range(len(before) + 1, len(before + text) + 1)
    found = [(end, stop) for end in ends for stop in stops if (before + text)[:end].endswith(stop)]
    if found:
        end, stop = min(found, key=lambda at: (at[0], -len(at[1])))
        assert (out, stream.found) == ((before + text)[: end - len(stop)], stop)
    else:
        assert (out, stream.found) == (before + text, None)


@given(text=LETTERS, stops=STOPS, split=st.integers(0, 12))
def test_replayed_text_leads_to_the_same_continuation(text: str, stops: tuple[str, ...], split: int) -> None:
    here, elsewhere = StopStrings(stops), StopStrings(stops)
    pieces = [here.push(letter) for letter in text]
    elsewhere.push(text[:split])
    assert [elsewhere.push(letter) for letter in text[split:]] == pieces[split:]
    assert (elsewhere.flush(), elsewhere.found) == (here.flush(), here.found)


@pytest.mark.parametrize(
    ("pieces", "out"),
    [
        (["one", "\n", "two"], ["one", "", "\ntwo"]),
        (["one\n", "\n", "two"], ["one", "", ""]),
        (["a", "##", "# b"], ["a", "", "### b"]),
    ],
)
def test_by_example(pieces: list[str], out: list[str]) -> None:
    stream = StopStrings(("\n\n", "###!"))
    assert list(map(stream.push, pieces)) == out
