"""From a file of requests to a job: read, checked, cut and kept."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from hashlib import blake2b

from services.common.errors import InvalidArgument
from services.jobs.chunks import Cutter
from services.jobs.job import Spec
from services.jobs.lines import check_endpoint, read_line
from services.jobs.splitting import numbered_lines
from services.jobs.store import JobStore

MOST_REQUESTS = 1_000_000
DAY_SECONDS = 24 * 3600
MOST_WINDOW_SECONDS = 30 * DAY_SECONDS
MOST_METADATA = 16


async def submit(
    jobs: JobStore,
    content: AsyncIterator[bytes],
    *,
    endpoint: str = "",
    input_file: str = "",
    metadata: dict[str, str] | None = None,
    window_seconds: int = 0,
) -> Spec:
    """Keeps a job; it exists once this returns, and not before.

    Args:
        content: lines, cut anywhere.
        endpoint: for lines that are bodies only; see read_line.
        window_seconds: how long it may take; 0: a day.

    Raises:
        InvalidArgument: what was said of the job is wrong, or a line is; the message names the first one.
        Unavailable: the store is away.
    """
    window = _window(window_seconds)
    if endpoint:
        check_endpoint(endpoint)
    if len(metadata or {}) > MOST_METADATA:
        raise InvalidArgument(f"metadata has {len(metadata or {})} keys; expected at most {MOST_METADATA}")
    job = new_id("job", time.time_ns() // 1_000_000)
    try:
        requests, chunks = await _keep(jobs, job, content, endpoint)
    except BaseException:  # a caller that left in the middle, too
        await asyncio.shield(jobs.abandon(job))
        raise
    created = time.time_ns() // 1_000_000
    spec = Spec(job, requests, chunks, created, window, endpoint, input_file, dict(metadata or {}))
    await jobs.submit(spec)
    return spec


def new_id(kind: str, now_ms: int) -> str:
    """Ids sort by when they were made, and are not to be guessed."""
    return f"{kind}_{now_ms:012x}{secrets.token_hex(8)}"


async def _keep(jobs: JobStore, job: str, content: AsyncIterator[bytes], endpoint: str) -> tuple[int, int]:
    """Writes the chunks. Returns how many requests and chunks there are."""
    cutter, seen, chunks = Cutter(), dict[bytes, int](), 0
    async for number, line in numbered_lines(content):
        request = read_line(line, number, endpoint)
        digest = blake2b(request.custom_id.encode(errors="surrogatepass"), digest_size=16).digest()
        if (first := seen.setdefault(digest, number)) != number:
            raise InvalidArgument(f"line {number}: custom_id {request.custom_id!r} is that of line {first}, too")
        if len(seen) > MOST_REQUESTS:
            raise InvalidArgument(f"the job has over {MOST_REQUESTS:,} requests; submit several")
        if (full := cutter.add(request.line())) is not None:
            await jobs.put_input(job, chunks, full)
            chunks += 1
    if rest := cutter.rest():
        await jobs.put_input(job, chunks, rest)
        chunks += 1
    if not seen:
        raise InvalidArgument("the job has no requests; expected one JSON object a line")
    return len(seen), chunks


def _window(seconds: int) -> int:
    if seconds > MOST_WINDOW_SECONDS:
        raise InvalidArgument(
            f"the window is {seconds} s; expected at most {MOST_WINDOW_SECONDS} (30 days), or 0: a day"
        )
    return seconds or DAY_SECONDS
