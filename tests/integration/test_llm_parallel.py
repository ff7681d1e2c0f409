"""Tensor parallelism on two ranks: the same tokens as on one, and a group that lives and dies as one."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import FailedPrecondition, InvalidArgument
from services.worker.llm.engine import Engine, open_engine
from services.worker.llm.group import Group, decode, encode
from services.worker.llm.options import EngineOptions
from services.worker.llm.plan import Plan
from services.worker.llm.stepping import EngineBroken
from tests.support.llm_engine import SMALL, opened, prompts, request, sampled
from tests.support.llm_models import check_greedy, oracle, save_model
from tests.support.stack import wait_until

TWO: dict[str, Any] = {**SMALL, "tensor_parallel_size": 2}


def group_of(engine: Engine) -> Group:
    group: Any = engine._stepper._runner
    assert isinstance(group._group, Group)
    return group._group


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
async def test_two_ranks_generate_what_one_does(tmp_path: Path, family: str) -> None:
    folder = save_model(tmp_path, family)
    mixed = prompts(12)
    async with opened(folder, **{**TWO, "num_blocks": 60}) as caller:
        pids = group_of(caller.engine).pids
        outputs = await caller.run(*(request(f"r{i}", prompt) for i, prompt in enumerate(mixed)))
        drawn = await caller.run(*(sampled(f"s{i}", prompt, seed=i) for i, prompt in enumerate(mixed)))
    model = oracle(folder)
    for prompt, output in zip(mixed, outputs, strict=True):
        check_greedy(model, prompt, output.token_ids)
    async with opened(folder) as caller:
        alone = await caller.run(*(sampled(f"s{i}", prompt, seed=i) for i, prompt in enumerate(mixed)))
    assert [output.token_ids for output in drawn] == [output.token_ids for output in alone]
    assert all(map(gone, pids)), "a rank outlived its engine"


async def test_a_rank_that_dies_takes_the_group_down(tmp_path: Path) -> None:
    engine = await open_engine(save_model(tmp_path), EngineOptions(**TWO))
    (pid,) = group_of(engine).pids
    engine.submit(sampled("a", (1, 2, 3), max_tokens=400))
    with pytest.raises(EngineBroken, match="over 2 ranks failed"):
        async with asyncio.timeout(30):
            async for outputs in engine.outputs():
                if len(outputs) and outputs[0].output_tokens == 5:
                    os.kill(pid, signal.SIGKILL)
    await engine.close()
    assert gone(pid)


FIRST_RANK = """
import asyncio, sys
from pathlib import Path
from services.worker.llm.engine import open_engine
from services.worker.llm.options import EngineOptions

async def main():
    engine = await open_engine(Path(sys.argv[1]), EngineOptions(num_blocks=50, tensor_parallel_size=2, threads=1))
    print(*engine._stepper._runner._group.pids, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_ranks_whose_first_is_killed_leave(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FIRST_RANK, str(save_model(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        pid = int(first.stdout.readline())
        assert not gone(pid)
        first.kill()
    wait_until(lambda: gone(pid), "the other rank to leave")


@pytest.mark.parametrize(
    ("family", "ranks", "reason"),
    [
        ("gpt2", 2, "gpt2 models have no tensor-parallel plan"),
        ("qwen3", 2, "does not divide the model's num_key_value_heads, 1"),
        ("llama", 3, "does not divide the model's num_attention_heads, 4"),
    ],
)
async def test_what_cannot_be_cut_is_refused(tmp_path: Path, family: str, ranks: int, reason: str) -> None:
    folder = save_model(tmp_path, family)
    with pytest.raises(InvalidArgument, match=reason):
        await open_engine(folder, EngineOptions(**{**SMALL, "tensor_parallel_size": ranks}))


async def test_a_rank_that_does_not_load_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(FailedPrecondition, match="rank 1 of 2 did not load the model"):
        await open_engine(save_model(tmp_path), EngineOptions(**TWO))


def test_plans_travel_whole() -> None:
    plan = Plan(rows=[3, 1], starts=[0, 9], counts=[2, 1], token_ids=[5, 6, 7], sampling=[1])
    plan.extend_table(3, 0, [8, 9])
    again = decode(encode(plan))
    for name in ("rows", "starts", "counts", "token_ids", "sampling", "table_rows", "table_columns", "table_blocks"):
        assert getattr(again, name) == getattr(plan, name)
