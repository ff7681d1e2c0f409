"""500 models under a Zipf popularity on two workers whose memory holds a tenth of them.

python -m benchmarks.multi_model [--models 500] [--hold 50] [--requests 6000] [--evictions 5000] [--callers 8]
    [--rabbitmq]
"""

import argparse
import asyncio
import tempfile
import time
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path

from benchmarks.multi_model import zoo
from benchmarks.multi_model.callers import call_all, percentile
from benchmarks.multi_model.fleet import WORKERS, fleet, settled, zoo_stack
from benchmarks.multi_model.popularity import lru_misses, zipf
from headrace import Client
from tests.support.brokers import rabbitmq_server
from tests.support.stack import RunningStack


def say(line: str) -> None:
    """To the terminal, at once."""
    print(line, flush=True)


def under_zipf(up: RunningStack, client: Client, options: argparse.Namespace, capacity: int) -> None:
    """Hits beside those of one offline cache on the same sequence."""
    sequence = zipf(options.models, options.requests, seed=1)
    before, began = fleet(client), time.perf_counter()
    latencies = asyncio.run(call_all(up.address("gateway"), sequence, options.callers))
    seconds = time.perf_counter() - began
    after = settled(client)
    loads, evictions = after.loads - before.loads, after.evictions - before.evictions
    offline = lru_misses(sequence, [zoo.declared_bytes(number) for number in range(options.models)], capacity)
    say(f"zipf: {len(sequence)} requests in {seconds:.1f} s, {len(sequence) / seconds:.0f}/s, all answered and right")
    say(f"  hit rate {1 - loads / len(sequence):.2%}, offline LRU of the same bytes {1 - offline / len(sequence):.2%}")
    say(f"  loads {loads} (offline {offline}), evictions {evictions}, {loads / seconds:.1f} loads/s")
    say(f"  held {len(after.held)} models in {after.copies} copies, {after.used_bytes / 2**20:.0f} MiB charged")
    say(f"  latency p50 {percentile(latencies, 0.5):.1f} ms, p99 {percentile(latencies, 0.99):.1f} ms")


def cold(up: RunningStack, client: Client, options: argparse.Namespace) -> None:
    """One caller asks for models that nobody holds."""
    latencies: list[float] = []
    while len(latencies) < options.cold:
        held = settled(client).held
        absent = [number for number in range(options.models) if zoo.name_of(number) not in held]
        latencies += asyncio.run(call_all(up.address("gateway"), absent[: options.hold // 4], 1))
    line = ", ".join(f"p{share} {percentile(latencies, share / 100):.0f} ms" for share in (50, 90, 99))
    say(f"cold: {len(latencies)} requests for models in no memory, with an eviction each: {line}")


def churn(up: RunningStack, client: Client, options: argparse.Namespace) -> None:
    """All models in turn: every request evicts. Memory must stay where it was."""
    begin = fleet(client).evictions
    turns = cycle(range(options.models))
    say(f"churn: memory of {WORKERS} workers over {options.evictions} evictions")
    while (evicted := settled(client).evictions - begin) < options.evictions:
        asyncio.run(call_all(up.address("gateway"), islice(turns, options.models), options.callers))
        state = settled(client)
        resident, charged = state.resident_bytes / 2**20, state.used_bytes / 2**20
        say(f"  {state.evictions - begin:5} evictions: resident {resident:.0f} MiB, charged {charged:.0f} MiB")
        if state.evictions - begin == evicted:
            raise RuntimeError("requests for models in no memory evict nobody")


def main() -> None:
    """All three, on one stack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--hold", type=int, default=50, help="models of mean size that all workers hold together")
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--cold", type=int, default=200)
    parser.add_argument("--evictions", type=int, default=5000)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--rabbitmq", action="store_true", help="on a RabbitMQ node of its own")
    options = parser.parse_args()
    capacity = options.hold * sum(size.declared_mib for size in zoo.SIZES) // len(zoo.SIZES) * 2**20
    with ExitStack() as parts:
        folder, broker = Path(parts.enter_context(tempfile.TemporaryDirectory())), ""
        if options.rabbitmq:
            (folder / "rabbitmq").mkdir()
            broker = parts.enter_context(rabbitmq_server(folder / "rabbitmq")).url
        began = time.perf_counter()
        up = parts.enter_context(zoo_stack(folder, options.models, capacity, broker))
        client = parts.enter_context(Client(up.address("gateway")))
        say(f"start: {options.models} models pushed and consumed in {time.perf_counter() - began:.1f} s")
        under_zipf(up, client, options, capacity)
        cold(up, client, options)
        churn(up, client, options)


if __name__ == "__main__":
    main()
