"""Tokens to text piece by piece, on real tokenizers: nothing is lost, doubled or half a character."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from services.worker.llm.detokenise import KEEP, MAX_PENDING, REPLACEMENT, Detokeniser
from tests.support.llm_tokenizers import CORPUS, END, Library, byte_level, id_of, metaspace, unigram

TOKENIZERS = {"byte level": byte_level(), "unigram": unigram(), "metaspace": metaspace()}
EVERY_KIND = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)

MARKS = [
    "\u0301",
    "\u094d",
    "\u200d",
    "\ufe0f",
    "🏽",
    "👩‍👩‍👧‍👦",
    "🇩🇪",
    "水",
    "한",
    "ẞ",
    "\ufffd",
    " ",
    "  ",
    "\n",
    "\x00",
]
# As bytes, more than ten U+FFFD in a row are taken for characters that do not come.
PLAIN = st.characters(exclude_characters=REPLACEMENT, codec="utf-8")
TEXTS = st.lists(st.sampled_from([*MARKS, *CORPUS]) | st.text(PLAIN, max_size=6), max_size=8).map("".join)


def pieces(tokenizer: Tokenizer, ids: Sequence[int], prompt: Sequence[int] = ()) -> list[str]:
    """One for each id, and the rest."""
    stream = Detokeniser(Library(tokenizer), prompt)
    return [*(stream.push(i) for i in ids), stream.flush()]


@EVERY_KIND
@settings(deadline=None)
@given(text=TEXTS)
def test_the_pieces_are_the_whole(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    got = pieces(tokenizer, ids)
    assert "".join(got) == tokenizer.decode(ids)
    assert got[-1].strip(REPLACEMENT) == "", "whole characters do not wait for the end"
    if REPLACEMENT not in text:
        assert not any(REPLACEMENT in piece for piece in got)


@EVERY_KIND
@settings(deadline=None)
@given(before=TEXTS, text=TEXTS)
def test_after_a_prompt_the_pieces_are_what_the_whole_adds(tokenizer: Tokenizer, before: str, text: str) -> None:
    prompt, ids = tokenizer.encode(before).ids, tokenizer.encode(text).ids
    whole, head = tokenizer.decode(prompt + ids), tokenizer.decode(prompt)
    if head and not head.endswith(REPLACEMENT):
        assert head + "".join(pieces(tokenizer, ids, prompt)) == whole


def test_a_first_space_is_written_after_a_prompt_only() -> None:
    tokenizer = TOKENIZERS["unigram"]
    word = [id_of(tokenizer, "▁The")]
    assert pieces(tokenizer, word) == ["The", ""]
    assert pieces(tokenizer, word, [*word, *word]) == [" The", ""]


@settings(deadline=None)
@given(data=st.data())
def test_any_tokens_at_all_of_a_byte_level_tokenizer_are_the_whole(data: st.DataObject) -> None:
    tokenizer = TOKENIZERS["byte level"]
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=80))
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@settings(deadline=None)
@given(data=st.data())
def test_whole_characters_among_stray_bytes_are_never_lost(data: st.DataObject) -> None:
    """With byte fallback the library gives up a whole run of bytes for one that is wrong; what is out stays out."""
    tokenizer = TOKENIZERS["unigram"]
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1) | st.integers(1, 256), max_size=80))
    got = iter("".join(pieces(tokenizer, ids)))
    assert all(letter in got for letter in tokenizer.decode(ids) if letter != REPLACEMENT)


@EVERY_KIND
@settings(deadline=None)
@given(text=TEXTS, data=st.data())
def test_replayed_tokens_lead_to_the_same_continuation(tokenizer: Tokenizer, text: str, data: st.DataObject) -> None:
    ids = tokenizer.encode(text).ids
    split = data.draw(st.integers(0, len(ids)))
    elsewhere = Detokeniser(Library(tokenizer))
    for token in ids[:split]:
        elsewhere.push(token)
    assert [*map(elsewhere.push, ids[split:]), elsewhere.flush()] == pieces(tokenizer, ids)[split:]


@EVERY_KIND
def test_a_family_is_written_person_by_person(tokenizer: Tokenizer) -> None:
    # Its code points are characters of their own to a decoder; none of them comes in half.
    family = "👨‍👩‍👦"
    ids = tokenizer.encode(family + "。").ids
    got = [piece for piece in pieces(tokenizer, ids) if piece]
    assert "".join(got) == family + "。"
    assert got[0] in ("👨", "👨\u200d")


def test_text_before_an_incomplete_character_is_not_held_back() -> None:
    tokenizer = TOKENIZERS["byte level"]
    head, first, *rest = (id_of(tokenizer, letter) for letter in "Aðł")
    stream = Detokeniser(Library(tokenizer))
    assert [stream.push(head), stream.push(first), *map(stream.push, rest)] == ["A", "", ""]
    assert stream.flush() == REPLACEMENT


@dataclass(frozen=True)
class Watched(Library):
    """Notes how many tokens are decoded together."""

    lengths: list[int] = field(default_factory=list)

    def decode(self, ids: Sequence[int], /) -> str:
        self.lengths.append(len(ids))
        return super().decode(ids)


@pytest.mark.parametrize("letter", ["½", "ð"])
def test_undecodable_output_flows_and_keeps_the_window_short(letter: str) -> None:
    tokenizer = TOKENIZERS["byte level"]
    stray, plain = id_of(tokenizer, letter), id_of(tokenizer, "A")
    watched = Watched(tokenizer)
    stream = Detokeniser(watched)
    got = "".join(stream.push(stray) for _ in range(300))
    assert 300 - MAX_PENDING <= len(got) <= 300
    assert got + stream.push(plain) + stream.flush() == REPLACEMENT * 300 + "A"
    assert max(watched.lengths) <= MAX_PENDING + KEEP + 1


@EVERY_KIND
def test_hidden_special_tokens_change_nothing(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The mill").ids
    watched = Watched(tokenizer)
    stream = Detokeniser(watched)
    got = "".join(map(stream.push, ids))
    assert [stream.push(id_of(tokenizer, END)) for _ in range(300)] == [""] * 300
    assert got + "".join(map(stream.push, ids)) + stream.flush() == tokenizer.decode([*ids, *ids])
    assert max(watched.lengths) <= MAX_PENDING + len(ids) + 1


@pytest.mark.parametrize("kind", ["unigram", "metaspace"])
def test_a_stray_byte_does_not_touch_what_is_out(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = [id_of(tokenizer, piece) for piece in ("<0xE4>", "<0xBD>", "<0xA0>", "<0xFF>", "▁The")]
    assert pieces(tokenizer, ids) == ["", "", "你", "", f"{REPLACEMENT} The", ""]


def test_a_character_begun_in_the_prompt_comes_whole() -> None:
    tokenizer = TOKENIZERS["byte level"]
    first, second, third = (id_of(tokenizer, letter) for letter in "ä½ł")
    assert pieces(tokenizer, [third], [first, second]) == ["你", ""]
