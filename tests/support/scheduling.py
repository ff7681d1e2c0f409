"""A small scheduler to drive step by step."""

import math
import zlib

from services.worker.llm.config import SchedulerConfig
from services.worker.llm.plan import Plan
from services.worker.llm.request import GenerationRequest, SamplingParams
from services.worker.llm.scheduler import Scheduler
from services.worker.llm.sequence import Sequence

EOS = 2


def scheduler(
    *,
    blocks: int = 100,
    size: int = 4,
    seqs: int = 8,
    budget: int = 64,
    context: int = 1000,
    prefix_caching: bool = True,
) -> Scheduler:
    return Scheduler(
        SchedulerConfig(
            max_model_len=context,
            vocab_size=1000,
            num_blocks=blocks,
            block_size=size,
            max_num_seqs=seqs,
            max_num_batched_tokens=budget,
            eos_token_ids=frozenset({EOS}),
            prefix_caching=prefix_caching,
        )
    )


def submit(
    core: Scheduler,
    name: str,
    prompt: int | tuple[int, ...] = 5,
    most: int | None = 5,
    *,
    priority: int = 0,
    deadline: float = math.inf,
    resume: tuple[int, ...] = (),
    tenant: str = "",
    params: SamplingParams | None = None,
) -> Sequence:
    """A number as prompt: so many tokens that no other sequence has."""
    ids = (
        prompt
        if isinstance(prompt, tuple)
        else tuple(100 + (zlib.crc32(name.encode()) + i) % 800 for i in range(prompt))
    )
    return core.submit(
        GenerationRequest(
            id=name,
            prompt=ids,
            params=params or SamplingParams(max_tokens=most),
            priority=priority,
            deadline=deadline,
            resume=resume,
            tenant=tenant,
        )
    )


def step(core: Scheduler, token: int = 7, now: float = 0.0) -> Plan:
    plan = core.step(now)
    core.commit(plan, [token] * len(plan.sampling))
    core.check_integrity()
    return plan


def chunks(plan: Plan) -> list[tuple[str, int, int]]:
    return [(s.id, start, n) for s, start, n in zip(plan.sequences, plan.starts, plan.counts, strict=True)]
