"""The native engine: transformers' generate() is the oracle for every family, in any company."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from services.worker.llm.request import StructuredOutput
from tests.support.llm_engine import opened, prompts, request, sampled
from tests.support.llm_models import FAMILIES, check_greedy, oracle, save_model, tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture(scope="module")
def oracles(folders: dict[str, Path]) -> dict[str, Any]:
    return {family: oracle(folder) for family, folder in folders.items()}


@pytest.mark.parametrize("family", FAMILIES)
async def test_alone(family: str, folders: dict[str, Path], oracles: dict[str, Any]) -> None:
    async with opened(folders[family]) as caller:
        for i, prompt in enumerate(prompts(4)):
            (output,) = await caller.run(request(f"r{i}", prompt, max_tokens=40))
            check_greedy(oracles[family], prompt, output.token_ids)


@pytest.mark.parametrize("caching", [True, False], ids=["caching", "no caching"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_among_32_with_shared_beginnings(
    family: str, caching: bool, folders: dict[str, Path], oracles: dict[str, Any]
) -> None:
    beginning = prompts(1, (40,), seed=5)[0]
    mixed = [(*beginning, *prompt) if i % 2 else prompt for i, prompt in enumerate(prompts(32))]
    async with opened(folders[family], prefix_caching=caching) as caller:
        outputs = await caller.run(*(request(f"r{i}", prompt, max_tokens=16) for i, prompt in enumerate(mixed)))
        assert caller.steps > 16 + 10  # the budget made chunks of the prompts
        hits = caller.engine.stats().prefix_tokens_hit
        assert (hits >= 14 * 32) if caching else hits == 0
    for prompt, output in zip(mixed, outputs, strict=True):
        check_greedy(oracles[family], prompt, output.token_ids)


@pytest.mark.parametrize("attention", ["native", "gather"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
async def test_across_preemptions(
    family: str, attention: str, folders: dict[str, Path], oracles: dict[str, Any]
) -> None:
    mixed = prompts(12, (30, 50), seed=2)
    async with opened(folders[family], num_blocks=18, attention=attention) as caller:
        outputs = await caller.run(*(request(f"r{i}", prompt, max_tokens=40) for i, prompt in enumerate(mixed)))
        assert caller.engine.stats().preemptions > 0
    for prompt, output in zip(mixed, outputs, strict=True):
        check_greedy(oracles[family], prompt, output.token_ids)


async def test_sampled_tokens_are_the_same_alone_in_company_and_across_preemptions(folders: dict[str, Path]) -> None:
    mixed = prompts(12, (30, 50), seed=3)
    wanted = [
        sampled(f"r{i}", prompt, max_tokens=40, seed=i, frequency_penalty=0.3, top_k=40 * (i % 2))
        for i, prompt in enumerate(mixed)
    ]
    async with opened(folders["llama"]) as caller:
        alone = [(await caller.run(one))[0].token_ids for one in wanted]
    async with opened(folders["llama"], num_blocks=18) as caller:
        together = [output.token_ids for output in await caller.run(*wanted)]
        assert caller.engine.stats().preemptions > 0
    assert together == alone
    assert len({tokens[:4] for tokens in alone}) == 12


@pytest.mark.parametrize("make", [request, sampled])
async def test_a_stream_goes_on_elsewhere_where_it_was(make: Any, folders: dict[str, Path]) -> None:
    (prompt,) = prompts(1, (33,), seed=4)
    params = {"max_tokens": 40, "ignore_eos": True, "repetition_penalty": 1.1}
    async with opened(folders["qwen3"]) as caller:
        (whole,) = await caller.run(make("same id", prompt, **params))
    for passed_on in (1, 15, 39):
        first = "".join(part.text for part in caller.outputs["same id"][:passed_on])
        async with opened(folders["qwen3"]) as elsewhere:
            (rest,) = await elsewhere.run(make("same id", prompt, resume=whole.token_ids[:passed_on], **params))
        assert whole.token_ids[:passed_on] + rest.token_ids == whole.token_ids
        assert first + rest.text == whole.text
        assert (rest.output_tokens, rest.finish_reason) == (40, "length")


async def test_a_resumed_request_that_is_complete_ends_at_once(folders: dict[str, Path]) -> None:
    async with opened(folders["llama"]) as caller:
        (output,) = await caller.run(request("a", (5, 6), resume=(7, 8, 9), max_tokens=3))
        assert (output.token_ids, output.finish_reason, output.output_tokens) == ((), "length", 3)


async def test_stop_strings_end_tokens_and_usage(folders: dict[str, Path]) -> None:
    (prompt,) = prompts(1, (33,))
    async with opened(folders["llama"]) as caller:
        (free,) = await caller.run(request("free", prompt, max_tokens=40, ignore_eos=True))
        stop = free.text[20:23]
        (stopped,) = await caller.run(request("stopped", prompt, max_tokens=40, ignore_eos=True, stop=(stop,)))
        assert stopped.text == free.text[: free.text.index(stop)]
        assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)
        end = free.token_ids[9]
        (ended,) = await caller.run(request("ended", prompt, max_tokens=40, ignore_eos=True, stop_token_ids=(end,)))
        assert ended.token_ids == free.token_ids[: free.token_ids.index(end) + 1]
        assert (ended.finish_reason, ended.stop_reason) == ("stop", end)
        assert (ended.prompt_tokens, ended.cached_tokens) == (33, 32)


async def test_logprobs_come_for_every_token(folders: dict[str, Path], oracles: dict[str, Any]) -> None:
    prompt = prompts(1, (20,))[0]
    async with opened(folders["qwen2"]) as caller:
        (output,) = await caller.run(request("a", prompt, logprobs=3, max_tokens=8, ignore_eos=True))
    assert output.logprobs is not None and len(output.logprobs) == 8
    with torch.inference_mode():
        logits = oracles["qwen2"](torch.tensor([[*prompt, *output.token_ids]])).logits[0, len(prompt) - 1 : -1]
    scores = torch.log_softmax(logits, -1)
    for place, found in enumerate(output.logprobs):
        assert found.chosen == pytest.approx(float(scores[place, output.token_ids[place]]), abs=1e-4)
        assert [score for _, score in found.top] == pytest.approx(scores[place].topk(3).values.tolist(), abs=1e-4)


async def test_structured_output_among_others_and_across_a_move(folders: dict[str, Path]) -> None:
    schema = json.dumps({"type": "object", "properties": {"n": {"enum": [12345678, 87654321]}}, "required": ["n"],
                         "additionalProperties": False})  # fmt: skip
    made = {"structured": StructuredOutput(json=schema), "max_tokens": 60, "ignore_eos": False}
    prompt = prompts(1, (12,))[0]
    async with opened(folders["llama"]) as caller:
        free, bound = await caller.run(sampled("free", prompt), sampled("bound", prompt, **made))
        assert json.loads(bound.text)["n"] in {12345678, 87654321} and bound.finish_reason == "stop"
        assert len(free.token_ids) == 24
    async with opened(folders["llama"]) as elsewhere:
        (rest,) = await elsewhere.run(sampled("bound", prompt, resume=bound.token_ids[:5], **made))
    assert bound.token_ids[:5] + rest.token_ids == bound.token_ids


async def test_bfloat16_runs(folders: dict[str, Path]) -> None:
    async with opened(folders["qwen3"], dtype="bfloat16") as caller:
        (output,) = await caller.run(request("a", prompts(1, (40,))[0], ignore_eos=True))
        assert len(output.token_ids) == 24 and len(tokenizer().decode(list(output.token_ids))) > 0
