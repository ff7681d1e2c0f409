"""The demo: trains a digits classifier, serves it through the whole local stack, and shows what came of it.

    python examples/digits.py [--callers 64] [--requests 5000]
    python examples/digits.py --export digits.onnx      trains and writes the model, no more

Gateway, queue, micro-batching worker and registry run as processes of their own; every request is a gRPC call.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from local_stack import console, stack
from rich.table import Table
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from tracing import Collector, RootSpan, collecting, draw

from headrace import AsyncClient, InferResult
from headrace.client.registry import RegistryClient
from headrace.client.tensors import Array

MODEL = "digits"


@dataclass(frozen=True, slots=True)
class Served:
    """What the load brought back: one entry for each request."""

    correct: int
    seconds: float
    latencies: list[float]
    receipts: list[dict[str, int]]


def train(path: Path) -> tuple[Array, Array]:
    """Trains on half of scikit-learn's handwritten digits and writes the ONNX file.

    Returns the held-out images, float32 [N, 64], and their labels, int64 [N].
    """
    images, labels = load_digits(return_X_y=True)
    split: Any = train_test_split(images.astype(np.float32) / 16, labels, test_size=0.5, random_state=0)
    train_images, held_images, train_labels, held_labels = split
    classifier = MLPClassifier((64,), max_iter=600, random_state=0).fit(train_images, train_labels)
    model = to_onnx(classifier, train_images[:1], options={"zipmap": False}, target_opset=17)
    path.write_bytes(model.SerializeToString())
    return held_images, held_labels


async def classify(address: str, images: Array, labels: Array, callers: int, requests: int) -> Served:
    """Sends `requests` single-image requests from `callers` concurrent callers."""
    numbers = iter(range(requests))
    correct, latencies, receipts = 0, list[float](), list[dict[str, int]]()
    async with AsyncClient(address) as client:

        async def caller() -> None:
            nonlocal correct
            for number in numbers:
                row = number % len(images)
                began = time.perf_counter()
                result: InferResult = await client.infer(MODEL, {"X": images[row : row + 1]}, timeout=30)
                latencies.append(time.perf_counter() - began)
                receipts.append(result.receipt)
                correct += int(result.outputs["label"][0] == labels[row])

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
        return Served(correct, time.perf_counter() - began, latencies, receipts)


def show(served: Served, callers: int) -> None:
    """Accuracy, throughput, latency, batches, and where one request's time went."""
    count = len(served.latencies)
    low, middle, high = np.percentile(served.latencies, [50, 90, 99]) * 1000
    table = Table("", "", show_header=False)
    table.add_row("requests", f"{count:,} from {callers} concurrent callers, none failed")
    table.add_row("accuracy on held-out images", f"{served.correct / count:.1%}")
    table.add_row("throughput", f"{count / served.seconds:,.0f} requests/s")
    table.add_row("latency p50 / p90 / p99", f"{low:.1f} / {middle:.1f} / {high:.1f} ms")
    console.print(table)
    # Rounded up to powers of two.
    sizes: Counter[int] = Counter(1 << (receipt["batch_rows"] - 1).bit_length() for receipt in served.receipts)
    console.print("\nrequests by the size of the batch they ran in")
    most = max(sizes.values())
    for size, number in sorted(sizes.items()):
        console.print(
            f"  {'≤' if size > 1 else ' '}{size:3}  {'█' * max(1, round(50 * number / most))} {number:,}",
            highlight=False,
        )
    receipt = served.receipts[count // 2]
    console.print("\none request's receipt (trailing metadata of its reply)")
    for stage in ("queue", "batch", "compute"):
        console.print(f"  {stage:8} {receipt[f'{stage}_us'] / 1000:8.3f} ms", highlight=False)


async def demo(callers: int, requests: int) -> None:
    """Start to finish."""
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as folder:
        data = Path(folder)
        console.rule("train and export")
        images, labels = await asyncio.to_thread(train, data / "digits.onnx")
        console.print(f"scikit-learn's digits: trained on {1797 - len(images)} images, {len(images)} held out")
        console.rule("start the stack (embedded broker, directory store)")
        async with collecting() as collector, stack(data, collector.endpoint) as addresses:
            await push(addresses["registry"], data / "digits.onnx")
            await load(addresses["gateway"], images, labels, callers, requests)
            await trace(addresses["gateway"], images, collector)
            console.rule("stop")


async def push(address: str, path: Path) -> None:
    """Publishes the model."""
    console.rule("push")
    with RegistryClient(address) as registry:
        published = await asyncio.to_thread(registry.push, MODEL, path)
    console.print(f"published {published.name} version {published.version}")


async def load(address: str, images: Array, labels: Array, callers: int, requests: int) -> None:
    """Classifies and shows; a first round opens the connections and waits for the model to load."""
    console.rule("classify")
    await classify(address, images, labels, callers, min(requests, 500))
    show(await classify(address, images, labels, callers, requests), callers)


async def trace(address: str, images: Array, collector: Collector) -> None:
    """One request's way through the processes, as they recorded it."""
    console.rule("one request's trace")
    async with AsyncClient(address) as client:
        await client.infer(MODEL, {"X": images[:1]}, timeout=30)  # opens the connection
        root = RootSpan()
        await client.infer(MODEL, {"X": images[:1]}, timeout=30, traceparent=root.traceparent)
        whole = root.end("classify one image")
    spans = await collector.trace(root.trace_id, {"inference.GRPCInferenceService/ModelInfer", "compute"}, patience=6)
    console.print(draw(whole, spans), highlight=False, no_wrap=True, overflow="ignore", crop=False)
    if not spans:
        console.print("[yellow]the services sent no spans[/yellow]")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--export", type=Path)
    arguments = parser.parse_args()
    if arguments.export:
        train(arguments.export)
        parser.exit()
    asyncio.run(demo(arguments.callers, arguments.requests))
