"""From a file of requests to a job: read, checked, cut and kept."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from hashlib import blake2b

from services.common.errors import DeadlineExceeded, InvalidArgument
from services.jobs.chunks import Cutter
from services.jobs.job import Spec
from services.jobs.lines import check_endpoint, read_line
from services.jobs.splitting import numbered_lines
from services.jobs.store import JobStore

MOST_REQUESTS = 1_000_000
DAY_SECONDS = 24 * 3600
MOST_WINDOW_SECONDS = 30 * DAY_SECONDS
MOST_METADATA = 16
# A submission that takes longer is refused: its first chunks may have been swept as orphans (retention.py).
MOST_SUBMIT_SECONDS = DAY_SECONDS
# The autoscaler is told of so many of a job's models.
MOST_MODELS = 32


async def submit(
    jobs: JobStore,
    content: AsyncIterator[bytes],
    *,
    endpoint: str = "",
    input_file: str = "",
    metadata: dict[str, str] | None = None,
    window_seconds: int = 0,
    tenant: str = "",
) -> Spec:
    """Keeps a job; it exists once this returns, and not before.

    Args:
        content: lines, cut anywhere.
        endpoint: for lines that are bodies only; see read_line.
        window_seconds: how long it may take; 0: a day.
        tenant: whose it is.

    Raises:
        InvalidArgument: what was said of the job is wrong, or a line is; the message names the first one.
        DeadlineExceeded: it took over a day to arrive.
        Unavailable: the store is away.
    """
    window = _window(window_seconds)
    if endpoint:
        check_endpoint(endpoint)
    if len(metadata or {}) > MOST_METADATA:
        raise InvalidArgument(f"metadata has {len(metadata or {})} keys; expected at most {MOST_METADATA}")
    job, began = new_id("job", time.time_ns() // 1_000_000), time.monotonic()
    try:
        chunks, models = await _keep(jobs, job, content, endpoint)
        _check_time(time.monotonic() - began)
    except BaseException:  # a caller that left in the middle, too
        await asyncio.shield(jobs.abandon(job))
        raise
    spec = Spec(
        id=job,
        requests=models.total(),
        chunks=chunks,
        created_ms=time.time_ns() // 1_000_000,
        window_seconds=window,
        endpoint=endpoint,
        input_file=input_file,
        metadata=dict(metadata or {}),
        tenant=tenant,
        models=dict(models.most_common(MOST_MODELS)),
    )
    await jobs.submit(spec)
    return spec


def new_id(kind: str, now_ms: int) -> str:
    """Ids sort by when they were made, and are not to be guessed."""
    return f"{kind}_{now_ms:012x}{secrets.token_hex(8)}"


async def _keep(jobs: JobStore, job: str, content: AsyncIterator[bytes], endpoint: str) -> tuple[int, Counter[str]]:
    """Writes the chunks. Returns how many there are, and how many requests for each model."""
    cutter, seen, chunks, models = Cutter(), dict[bytes, int](), 0, Counter[str]()
    async for number, line in numbered_lines(content):
        request = read_line(line, number, endpoint)
        digest = blake2b(request.custom_id.encode(errors="surrogatepass"), digest_size=16).digest()
        if (first := seen.setdefault(digest, number)) != number:
            raise InvalidArgument(f"line {number}: custom_id {request.custom_id!r} is that of line {first}, too")
        if len(seen) > MOST_REQUESTS:
            raise InvalidArgument(f"the job has over {MOST_REQUESTS:,} requests; submit several")
        models[request.model] += 1
        if (full := cutter.add(request.line())) is not None:
            await jobs.put_input(job, chunks, full)
            chunks += 1
    if rest := cutter.rest():
        await jobs.put_input(job, chunks, rest)
        chunks += 1
    if not seen:
        raise InvalidArgument("the job has no requests; expected one JSON object a line")
    return chunks, models


def _check_time(seconds: float) -> None:
    if seconds > MOST_SUBMIT_SECONDS:
        raise DeadlineExceeded("the job took over a day to arrive; submit it again, in several parts if it must be")


def _window(seconds: int) -> int:
    if seconds > MOST_WINDOW_SECONDS:
        raise InvalidArgument(
            f"the window is {seconds} s; expected at most {MOST_WINDOW_SECONDS} (30 days), or 0: a day"
        )
    return seconds or DAY_SECONDS
