"""How jobs are cut and put together again, whatever the sizes and wherever a run broke off."""

import json
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from services.jobs.chunks import Counts, Cutter, Kind, counts, pack, remaining, select
from services.jobs.splitting import numbered_lines

# JSON lines hold no line feeds.
LINES = st.lists(st.binary(min_size=1, max_size=12).map(lambda line: line.replace(b"\n", b".")), max_size=40)


@given(LINES, st.integers(1, 7), st.integers(1, 30))
def test_chunks_hold_every_line_once_in_order_and_are_bounded(lines: list[bytes], most: int, size: int) -> None:
    cutter = Cutter(most, size)
    chunks = [chunk for line in lines if (chunk := cutter.add(line)) is not None]
    if rest := cutter.rest():
        chunks.append(rest)
    assert [line for chunk in chunks for line in chunk] == lines
    for chunk in chunks:
        assert 1 <= len(chunk) <= most
        assert len(chunk) == 1 or sum(map(len, chunk)) <= size


@given(
    st.lists(st.tuples(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b".")), st.booleans()), min_size=1)
)
def test_results_are_found_again_by_kind(results: list[tuple[bytes, bool]]) -> None:
    lines, failed = [line for line, _ in results], [bad for _, bad in results]
    packed = pack(lines, failed)
    assert counts(packed) == Counts(failed.count(False), failed.count(True))
    assert select(packed, Kind.ALL) == b"".join(line + b"\n" for line in lines)
    for kind in (Kind.OUTPUT, Kind.ERRORS):
        chosen = [line for line, bad in results if bad is (kind is Kind.ERRORS)]
        assert select(packed, kind) == b"".join(line + b"\n" for line in chosen)


@given(st.integers(0, 30), st.lists(st.sets(st.integers(0, 29)), max_size=6))
def test_however_often_a_run_breaks_off_each_chunk_is_done_once(chunks: int, runs: list[set[int]]) -> None:
    written: dict[int, int] = {}
    for got_to in [*runs, set(range(30))]:
        for number in remaining(chunks, written.keys()):
            if number in got_to:
                written[number] = written.get(number, 0) + 1
    assert written == dict.fromkeys(range(chunks), 1)


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\v\f\x1c\x1d\x1e\x85"), max_size=8)),
    st.lists(st.integers(1, 9)),
)
async def test_lines_are_the_same_however_the_stream_is_cut(lines: list[str], cuts: list[int]) -> None:
    content = "\n".join(lines).encode()

    async def pieces() -> AsyncIterator[bytes]:
        rest = content
        for cut in cuts:
            yield rest[:cut]
            rest = rest[cut:]
        yield rest

    expected = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    assert [found async for found in numbered_lines(pieces())] == expected


def test_counts_are_read_from_the_beginning_of_a_chunk() -> None:
    packed = pack([b"x" * 1000] * 3, [False, True, False])
    assert counts(packed[:200]) == Counts(2, 1)
    assert json.loads(packed.partition(b"\n")[0]) == {"requests": 3, "errors": [1]}
