"""Streams of reports to the registry's process: begun again whenever they break, for as long as a process lives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

REPORT_SECONDS = 1.0


async def report_for_ever(call: Callable[..., Any], reports: Callable[[], AsyncIterator[Any]]) -> None:
    """Sends one stream of reports after another; a registry that is away is tried again.

    Args:
        call: a stub's method that takes a stream and answers once, at its end.
        reports: makes a stream.
    """
    while True:
        with contextlib.suppress(grpc.RpcError):
            await call(reports(), wait_for_ready=True)
        await asyncio.sleep(REPORT_SECONDS)
