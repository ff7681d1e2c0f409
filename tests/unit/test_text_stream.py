"""A caller gets each sequence once and in order, however workers repeat themselves and however slowly he reads."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1.reply_pb2 import Progress, Reply
from headrace.v1.text_generation_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_STOP, TextChunk, Usage
from services.common.errors import Internal, QueueFull
from services.gateway.dispatch.text_stream import MOST_WAITING_BYTES, TextStream

TEXT = "déjà vu, größer — 日本語 und so weiter"
TOKENS = list(range(100, 100 + len(TEXT)))


def piece(begin: int, end: int, *, index: int = 0) -> Reply:
    """Characters and tokens begin to end of TEXT, a token a character; the last one ends it."""
    chunk = TextChunk(index=index, text=TEXT[begin:end], token_ids=TOKENS[begin:end])
    chunk.token_offset = chunk.text_offset = begin
    reply = Reply(id=1, chunk=chunk, more=True)
    if end == len(TEXT):
        reply.chunk.finish_reason = FINISH_REASON_STOP
        reply.usage.CopyFrom(Usage(prompt_tokens=5, completion_tokens=end))
    return reply


async def read(stream: TextStream) -> list[TextChunk]:
    """All that waits, and then the end."""
    ended = asyncio.get_running_loop().create_future()
    ended.set_result(Reply())
    return [chunk async for chunk in stream.chunks(ended)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 14)), max_size=20))
def test_repetitions_and_overlaps_leave_no_trace(steps: list[tuple[int, int]]) -> None:
    """Each step goes back by so many and brings so many."""
    stream, end = TextStream(1), 0
    for back, length in [*steps, (3, len(TEXT))]:
        begin = max(0, end - back)
        stop = min(len(TEXT), begin + length)
        stream.take(piece(begin, stop))
        end = max(end, stop)
        passed = (stream.progress() or [Progress()])[0]
        assert passed.text == TEXT[:end]
        assert list(passed.token_ids) == TOKENS[:end]
    chunks = asyncio.run(read(stream))
    assert "".join(chunk.text for chunk in chunks) == TEXT
    assert [token for chunk in chunks for token in chunk.token_ids] == TOKENS
    assert chunks[-1].finish_reason == FINISH_REASON_STOP
    assert stream.complete
    assert (stream.usage.prompt_tokens, stream.usage.completion_tokens) == (5, len(TEXT))


async def test_what_waits_for_a_slow_caller_is_joined() -> None:
    stream = TextStream(2)
    for number in range(len(TEXT)):
        stream.take(piece(number, number + 1))
    stream.take(piece(0, 7, index=1))
    first, second = await read(stream)
    assert (first.text, first.token_offset, len(first.token_ids)) == (TEXT, 0, len(TEXT))
    assert (second.index, second.text) == (1, TEXT[:7])
    assert not stream.complete


async def test_pieces_are_read_while_others_come() -> None:
    stream, ended = TextStream(1), asyncio.get_running_loop().create_future()
    chunks = stream.chunks(ended)
    stream.take(piece(0, 1))
    assert (await anext(chunks)).text == TEXT[:1]
    waiting = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    assert not waiting.done()
    stream.take(piece(1, 3))
    assert (await waiting).text == TEXT[1:3]
    ended.set_exception(Internal("broken"))
    with pytest.raises(Internal, match="broken"):
        await anext(chunks)


async def test_a_caller_who_does_not_read_ends_his_own_generation() -> None:
    stream, long = TextStream(1), "x" * (MOST_WAITING_BYTES // 2)
    stream.take(Reply(chunk=TextChunk(text=long)))
    stream.take(Reply(chunk=TextChunk(text="y", text_offset=len(long))))
    with pytest.raises(QueueFull, match="who does not read them"):
        stream.take(Reply(chunk=TextChunk(text=long, text_offset=len(long) + 1)))


async def test_a_gap_is_an_error_and_not_a_wrong_text() -> None:
    stream = TextStream(1)
    stream.take(piece(0, 3))
    with pytest.raises(Internal, match="after 4 tokens of sequence 0, but 3 had come"):
        stream.take(piece(4, 5))
    with pytest.raises(Internal, match="sequence 1 of 1"):
        stream.take(piece(0, 1, index=1))


async def test_an_end_without_a_token_counts() -> None:
    stream = TextStream(1)
    stream.take(piece(0, 3))
    end = TextChunk(finish_reason=FINISH_REASON_LENGTH, token_offset=3, text_offset=3, stop_string="x")
    stream.take(Reply(chunk=end, usage=Usage(prompt_tokens=1, completion_tokens=3)))
    (chunk,) = await read(stream)
    assert (chunk.text, chunk.finish_reason, chunk.stop_string) == (TEXT[:3], FINISH_REASON_LENGTH, "x")
    assert stream.progress()[0].finished
