"""Decode steps of fixed sizes bring what the plain path brings; only the recording as CUDA graphs is left to a GPU."""

import importlib.util
import os
import random
from collections.abc import Sequence as Run
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from services.common.errors import FailedPrecondition, InvalidArgument
from services.worker.llm import forward, graphs, loading, padded
from services.worker.llm.attention import hook
from services.worker.llm.options import EngineOptions
from services.worker.llm.request import GenerationRequest, SamplingParams
from services.worker.llm.runner import Runner
from services.worker.llm.stepping import Stepper
from services.worker.llm.structured import Grammars
from tests.support.llm_models import VOCABULARY, check_greedy, oracle, save_model, tokenizer, until_end
from tests.support.waits import Waits

# Triton's kernel runs on a CPU in Triton's own interpreter, where that is installed: TRITON_INTERPRET=1.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None
BLOCKS = 18


class Harness:
    """One engine without its thread, its decode steps recorded or not."""

    def __init__(self, folder: Path, capture: graphs.Capture | None, **options: Any) -> None:
        chosen = EngineOptions(
            dtype="float32", **{"num_blocks": BLOCKS, "max_num_seqs": 7, "max_num_batched_tokens": 48, **options}
        )
        hook.register()
        model = loading.load(folder, chosen, attention=hook.NAME, device="cpu")
        self.runner = Runner(model, chosen, Grammars(tokenizer(), VOCABULARY, model.eos_token_ids), capture=capture)
        self.stepper = Stepper(self.runner, tokenizer())

    def all(self, requests: Run[GenerationRequest]) -> dict[str, tuple[int, ...]]:
        """Submits one request a step, and runs until all have ended."""
        tokens: dict[str, tuple[int, ...]] = {request.id: () for request in requests}
        coming = list(requests)
        while coming or len(self.stepper.scheduler):
            if coming:
                assert not self.stepper.submit(coming.pop(0))
            for output in self.stepper.step(0.0):
                assert output.error is None
                tokens[output.id] += output.token_ids
        self.stepper.scheduler.check_integrity()
        return tokens

    @property
    def cache(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all layers and blocks, whatever the layout within a block."""
        attention: Any = self.runner._forward._attention
        return attention._keys, attention._values


def requests() -> list[GenerationRequest]:
    """Greedy and drawn ones, of lengths that make every number of sequences from one to seven."""
    chance = random.Random(1)
    made = []
    for number in range(14):
        prompt = tuple(chance.randrange(1, 500) for _ in range(chance.choice((3, 17, 30, 50))))
        drawn: dict[str, Any] = {"temperature": 0.9, "seed": number, "top_p": 0.9} if number % 3 == 1 else {}
        params = SamplingParams(**{"temperature": 0, "max_tokens": 30 + 3 * number, "ignore_eos": True, **drawn})
        made.append(GenerationRequest(id=f"r{number}", prompt=prompt, params=params))
    return made


@pytest.mark.parametrize(("family", "attention"), [("llama", "native"), ("gemma2", "native"), ("llama", "gather")])
def test_tokens_are_those_of_the_plain_path(tmp_path: Path, family: str, attention: str) -> None:
    folder = save_model(tmp_path, family)
    sizes: list[int] = []

    def counted(step: graphs.Step) -> graphs.Step:
        def replay() -> None:
            sizes.append(step.args[0])  # type: ignore[attr-defined]  # a partial of the step's size
            step()

        return replay

    plain = Harness(folder, None, attention=attention)
    recorded = Harness(folder, counted, attention=attention)
    expected, got = plain.all(requests()), recorded.all(requests())
    assert recorded.stepper.stats().preemptions > 0, "rows changed hands"
    assert set(sizes) == {1, 2, 4, 7}
    assert got == expected
    reference = oracle(folder)
    for request in requests():
        if request.params.greedy:
            check_greedy(reference, request.prompt, until_end(got[request.id]))
    # What padding wrote went to the block behind those that sequences get.
    for mine, theirs in zip(recorded.cache, plain.cache, strict=True):
        blocks = mine.reshape(mine.shape[0], BLOCKS + 1, -1)
        assert torch.allclose(blocks[:, :BLOCKS], theirs.reshape(theirs.shape[0], BLOCKS, -1), atol=1e-4)
        assert blocks[:, BLOCKS].any(), "there was padding"


@pytest.mark.skipif(not INTERPRETED, reason="needs triton and TRITON_INTERPRET=1")
def test_tokens_are_the_same_with_tritons_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.worker.llm.attention.triton import TritonAttention

    monkeypatch.setattr(forward, "make_attention", lambda _, *arguments: TritonAttention(*arguments))
    few = [replace(each, params=replace(each.params, max_tokens=5)) for each in requests()[:3]]  # it is slow
    folder = save_model(tmp_path, "gemma2")
    assert Harness(folder, graphs.eager).all(few) == Harness(folder, None).all(few)


def test_what_padding_holds_harms_nobody(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    recorded = Harness(folder, graphs.eager)
    for side in recorded.cache:
        side.view(side.shape[0], BLOCKS + 1, -1)[:, BLOCKS] = torch.nan
    assert recorded.all(requests()) == Harness(folder, None).all(requests())


def test_a_decode_step_waits_for_nothing_in_its_middle(tmp_path: Path) -> None:
    """A step that asks the device for a number can be no graph."""
    waits = Waits()

    def watched(step: graphs.Step) -> graphs.Step:
        def replay() -> None:
            with waits:
                step()

        return replay

    (first, *_) = requests()
    run = Harness(save_model(tmp_path), watched, attention="native")
    assert len(run.all([first])[first.id]) == first.params.max_tokens
    assert waits.found == []


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(1, [1]), (5, [1, 2, 4, 5]), (32, [1, 2, 4, 8, 16, 32]), (50, [1, 2, 4, 8, 16, 32, 48, 50])],
)
def test_sizes_end_with_the_most_sequences(most: int, sizes: list[int]) -> None:
    assert padded.ladder(most) == sizes


def test_graphs_are_refused_where_there_can_be_none(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="the model is on cpu"):
        Harness(save_model(tmp_path), None, cuda_graphs=True)
    with pytest.raises(InvalidArgument, match="one device"):
        EngineOptions(cuda_graphs=True, tensor_parallel_size=2)
