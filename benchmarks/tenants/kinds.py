"""What is served, and one call to it."""

import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from grpc import aio
from transformers import LlamaConfig

from benchmarks.llm.workloads import save_random
from headrace.client.tensors import make_request
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from headrace.v1 import text_generation_pb2 as text
from headrace.v1.text_generation_pb2_grpc import TextGenerationServiceStub
from tests.support.identity import identity
from tests.support.llm_models import VOCABULARY

if TYPE_CHECKING:
    from headrace.v1.text_generation_pb2_grpc import TextGenerationServiceAsyncStub

Metadata = tuple[tuple[str, str], ...]
TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Tensors:
    """A model of a known service time: a batch takes `batch_ms`, and `row_ms` for each row."""

    name: str
    batch_ms: float
    row_ms: float
    max_batch_size: int

    def package(self, folder: Path) -> Path:
        """A folder to push."""
        return identity(
            folder / self.name,
            batch_ms=self.batch_ms,
            request_ms=self.row_ms,
            max_batch_size=self.max_batch_size,
        )

    def capacity(self) -> float:
        """Requests a second in full batches; known by construction."""
        return 1000 * self.max_batch_size / (self.batch_ms + self.row_ms * self.max_batch_size)

    async def call(self, channel: aio.Channel, metadata: Metadata, chance: Random) -> float:
        """Seconds until the answer; the same to its first part. Raises RpcError."""
        request = make_request(self.name, {"x": np.ones((1, 4), np.float32)}, "", "")
        began = time.perf_counter()
        await GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=TIMEOUT_SECONDS, metadata=metadata)
        return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Tokens:
    """A random Llama of six million parameters on the native engine; 24 to 40 tokens after a prompt of 16.

    Large enough that the engine is the bottleneck and not the gateway that passes its tokens on.
    """

    name: str = "tokens"
    rows: int = 16

    def package(self, folder: Path) -> Path:
        """A folder to push."""
        made = save_llama(folder / self.name)
        (made / "model.yaml").write_text(
            f"llm: {{kv_cache_memory: 64MiB, dtype: float32, max_num_seqs: {self.rows}}}\n"
        )
        return made

    async def call(self, channel: aio.Channel, metadata: Metadata, chance: Random) -> float:
        """Seconds until the last token. Raises RpcError."""
        prompt = text.TokenIds(ids=[chance.randrange(1, VOCABULARY) for _ in range(16)])
        sampling = text.SamplingParams(temperature=0, max_tokens=chance.randint(24, 40), ignore_eos=True)
        request = text.GenerateRequest(model=self.name, tokens=prompt, sampling=sampling)
        began = time.perf_counter()
        stub: TextGenerationServiceAsyncStub = TextGenerationServiceStub(channel)
        async for _ in stub.GenerateStream(request, timeout=TIMEOUT_SECONDS, metadata=metadata):
            pass
        return time.perf_counter() - began


def save_llama(folder: Path) -> Path:
    """Of six million parameters."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    return save_random(folder, config)


Kind = Tensors | Tokens
TENSORS = (
    Tensors("one-by-one", batch_ms=0, row_ms=10, max_batch_size=1),
    Tensors("batch-costs", batch_ms=40, row_ms=0, max_batch_size=8),
    Tensors("rows-cost", batch_ms=10, row_ms=4, max_batch_size=8),
)
