"""The engine over vLLM, with something that behaves like vLLM in its place; tests/vllm has the real one."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any

import pytest

from headrace.packages import read_package
from services.common.errors import DeadlineExceeded, HeadraceError, InvalidArgument, ModelFailed
from services.common.sampling import SamplingParams, StructuredOutput
from services.worker.llm.decoders import decoders
from services.worker.llm.port import GenerationRequest, TokenOutput
from services.worker.llm.request import Logprobs
from services.worker.runtime.vllm.engine import VllmEngine
from services.worker.runtime.vllm.figures import Figures
from services.worker.runtime.vllm.opening import engine_arguments
from services.worker.runtime.vllm.sequence import sampling_arguments
from tests.support.llm_models import EOS, save_model, tokenizer
from tests.support.stack import wait_until

TOKENIZER = tokenizer()


def ids(text: str) -> list[int]:
    encoded: list[int] = TOKENIZER.encode(text).ids
    return encoded


PROMPT = tuple(ids("the wheel"))


def piece(tokens: list[int], reason: str | None = None, **more: Any) -> Record:
    """One RequestOutput of vLLM's."""
    completion = Record(token_ids=tokens, finish_reason=reason, stop_reason=None, logprobs=None)
    completion.__dict__.update(more)
    return Record(outputs=[completion], num_cached_tokens=4)


class Llm:
    """Gives what it was told to; with None it hangs, an exception it raises."""

    def __init__(self, *script: Record | Exception | None) -> None:
        self.script = script
        self.errored = False
        self.asked: list[tuple[Any, dict[str, Any], int]] = []
        self.aborted = 0

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, *, priority: int = 0
    ) -> AsyncGenerator[Any, None]:
        self.asked.append((prompt, sampling_params, priority))
        try:
            for step in self.script:
                if step is None:
                    await asyncio.Event().wait()
                if isinstance(step, Exception):
                    raise step
                yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted += 1
            raise

    def shutdown(self) -> None: ...


def engine_over(llm: Llm) -> VllmEngine:
    return VllmEngine(
        llm,
        decoders(TOKENIZER),
        parameters=dict,
        refusals=(ValueError,),
        max_model_len=64,
        figures=Figures(),
    )


def request(**params: Any) -> GenerationRequest:
    resume = params.pop("resume", ())
    return GenerationRequest(id="g/1#0", prompt=PROMPT, params=SamplingParams(**params), resume=resume, priority=3)


async def run(llm: Llm, asked: GenerationRequest) -> tuple[list[TokenOutput], VllmEngine]:
    """All outputs of one request, to its end."""
    engine, found = engine_over(llm), list[TokenOutput]()
    engine.submit(asked)
    async with asyncio.timeout(10):
        async for outputs in engine.outputs():
            found += outputs
            if found[-1].finish_reason is not None:
                break
    return found, engine


async def test_tokens_become_text_and_the_end_token_stays_out() -> None:
    turns = ids(" turns")
    llm = Llm(piece(turns[:1]), piece([*turns[1:], EOS], "stop"))
    found, engine = await run(llm, request(max_tokens=30))
    assert "".join(each.text for each in found) == " turns"
    last = found[-1]
    assert (last.finish_reason, last.stop_reason) == ("stop", None)
    assert (last.prompt_tokens, last.cached_tokens, last.output_tokens) == (len(PROMPT), 4, len(turns) + 1)
    assert llm.asked[0][0] == {"prompt_token_ids": list(PROMPT)}
    assert llm.asked[0][2] == -3, "vLLM serves low numbers first"
    await engine.close()


async def test_a_stop_string_ends_the_text_and_aborts_what_vllm_still_runs() -> None:
    llm = Llm(piece([*ids(" turns"), *ids(" and on")]), None)
    found, engine = await run(llm, request(stop=("rns",), max_tokens=30))
    assert "".join(each.text for each in found) == " tu"
    assert (found[-1].finish_reason, found[-1].stop_reason) == ("stop", "rns")
    assert found[-1].token_ids == tuple(ids(" turns")), "what was drawn beyond it is not passed on"
    await engine.close()
    assert llm.aborted == 1


async def test_it_goes_on_after_what_another_worker_gave() -> None:
    begun = tuple(ids(" tur"))
    llm = Llm(piece(ids("ns"), "length"))
    found, engine = await run(llm, request(resume=begun, max_tokens=len(begun) + 2, min_tokens=len(begun) + 1))
    assert "".join(each.text for each in found) == "ns"
    assert found[-1].output_tokens == len(begun) + len(ids("ns"))
    prompt, arguments, _ = llm.asked[0]
    assert prompt == {"prompt_token_ids": [*PROMPT, *begun]}
    assert (arguments["max_tokens"], arguments["min_tokens"]) == (2, 1)
    await engine.close()


@pytest.mark.parametrize(
    ("params", "reason", "text"),
    [({"max_tokens": 2}, "length", ""), ({"stop": ("ur",), "max_tokens": 50}, "stop", "")],
)
async def test_one_of_which_only_the_end_is_missing_does_not_run(params: Any, reason: str, text: str) -> None:
    begun = tuple(ids(" turns"))[:2] if reason == "length" else tuple(ids(" tur"))
    llm = Llm()
    found, engine = await run(llm, request(resume=begun, **params))
    assert [(each.finish_reason, each.text, each.token_ids) for each in found] == [(reason, text, ())]
    assert not llm.asked
    await engine.close()


@pytest.mark.parametrize(
    ("step", "kind", "message"),
    [
        (ValueError("too long"), InvalidArgument, "vLLM refuses this request: too long"),
        (RuntimeError("boom"), ModelFailed, "vLLM failed on this request: boom"),
        (piece([], "abort"), ModelFailed, "vLLM ended the generation: abort"),
    ],
)
async def test_what_fails_in_vllm_fails_its_request_only(step: Any, kind: type[HeadraceError], message: str) -> None:
    found, engine = await run(Llm(step), request())
    assert isinstance(found[-1].error, kind)
    assert message in str(found[-1].error)
    await engine.close()


async def test_an_engine_that_died_breaks() -> None:
    llm = Llm(RuntimeError("EngineCore died"))
    llm.errored = True
    engine = engine_over(llm)
    engine.submit(request())
    with pytest.raises(RuntimeError, match="EngineCore died"):
        await anext(aiter(engine.outputs()))
    await engine.close()


async def test_who_leaves_and_whose_deadline_passes_is_aborted() -> None:
    llm = Llm(piece(ids("a")), None)
    engine = engine_over(llm)
    engine.submit(request())
    with pytest.raises(InvalidArgument, match="ids must be unique"):
        engine.submit(request())
    assert (await anext(aiter(engine.outputs())))[0].text == "a"
    engine.abort("g/1#0")
    late = GenerationRequest(id="g/2#0", prompt=PROMPT, deadline=0.0)
    engine.submit(late)
    async with asyncio.timeout(10):
        async for outputs in engine.outputs():
            if outputs[-1].error is not None:
                break
    assert (outputs[-1].id, type(outputs[-1].error)) == ("g/2#0", DeadlineExceeded)
    assert llm.aborted == 2
    await engine.close()


def test_a_prompt_without_room_is_refused_at_once() -> None:
    with pytest.raises(InvalidArgument, match="the prompt has 64 tokens; the model's context holds 64"):
        engine_over(Llm()).submit(GenerationRequest(id="1", prompt=(1,) * 64))


async def test_log_probabilities_are_the_ports() -> None:
    entries = {7: Record(logprob=-3.0, rank=9), 5: Record(logprob=-0.1, rank=1), 6: Record(logprob=-0.5, rank=2)}
    found, engine = await run(Llm(piece([7], "length", logprobs=[entries])), request(logprobs=2))
    assert found[0].logprobs == (Logprobs(-3.0, 9, ((5, -0.1), (6, -0.5))),)
    await engine.close()


async def test_a_grammar_is_passed_on_but_not_entered_in_its_middle() -> None:
    structured = StructuredOutput(json_object=True)
    assert sampling_arguments(request(structured=structured))["structured_outputs"] == {"json_object": True}
    with pytest.raises(HeadraceError, match="cannot go on in the middle of structured output"):
        engine_over(Llm()).submit(request(structured=structured, resume=(1,)))


def test_the_manifest_becomes_engine_arguments(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    (folder / "model.yaml").write_text(
        "runtime: vllm\nllm: {max_num_seqs: 8, kv_cache_memory: 1GiB, prefix_caching: false}\n"
        "vllm: {enforce_eager: true, gpu_memory_utilization: 0.5}\n"
    )
    assert engine_arguments(folder, read_package(folder).spec.text) == {
        "model": str(folder),
        "load_format": "safetensors",
        "trust_remote_code": False,
        "scheduling_policy": "priority",
        "max_model_len": 512,
        "max_num_seqs": 8,
        "kv_cache_memory_bytes": 2**30,
        "enable_prefix_caching": False,
        "enforce_eager": True,
        "gpu_memory_utilization": 0.5,
    }


def test_figures_add_up() -> None:
    figures = Figures()
    figures.blocks = 200
    for _ in range(2):
        prefix = Record(queries=10, hits=4)
        scheduler = Record(num_running_reqs=3, num_waiting_reqs=1, kv_cache_usage=0.5, prefix_cache_stats=prefix)
        figures(None).record(scheduler, Record(num_preempted_reqs=1), mm_cache_stats=None, engine_idx=0)
    stats = figures.stats()
    assert (stats.running, stats.waiting, stats.kv_blocks_used, stats.kv_blocks_total) == (3, 1, 100, 200)
    assert (stats.prefix_tokens_hit, stats.prefix_tokens_asked, stats.preemptions) == (8, 20, 2)


OWNER = """
import subprocess, sys, time
from services.worker.runtime.vllm.guardian import Guardian
nested = "import subprocess; print(subprocess.Popen(['sleep', '300']).pid, flush=True); import time; time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", nested], stdout=subprocess.PIPE, start_new_session=True)
guardian = Guardian([child.pid])
print(child.pid, child.stdout.readline().decode().strip(), flush=True)
time.sleep(300)
"""


def test_processes_of_a_killed_owner_are_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = list(map(int, owner.stdout.readline().split()))
        assert len(pids) == 2
        assert all(map(alive, pids))
        owner.kill()
        wait_until(lambda: not any(map(alive, pids)), "the owner's processes to end", 30)


def alive(pid: int) -> bool:
    """Whether it runs; one that nobody has waited for yet does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
