"""What the LLM engine's own decisions cost a step, without any model: `python -m benchmarks.llm.scheduler`.

CPU time of the thread, so that a busy machine does not count.
"""

from time import thread_time

from services.worker.llm.config import SchedulerConfig
from services.worker.llm.request import GenerationRequest, SamplingParams
from services.worker.llm.scheduler import Scheduler

STEPS = 1000


def decoding(sequences: int, prompt: int, waiting: int) -> Scheduler:
    """A scheduler with so many sequences in mid-output, each on a prompt of its own, and more in line."""
    blocks_each = (prompt + STEPS) // 16 + 2
    config = SchedulerConfig(
        max_model_len=8192,
        vocab_size=1 << 20,
        num_blocks=sequences * blocks_each,
        max_num_seqs=sequences,
        max_num_batched_tokens=8192,
        eos_token_ids=frozenset({2}),
    )
    core = Scheduler(config)
    for number in range(sequences + waiting):
        tokens = (3 + number, *range(3, 2 + prompt))
        params = SamplingParams(max_tokens=STEPS + 500)
        core.submit(GenerationRequest(id=str(number), prompt=tokens, params=params, deadline=1e9))
    while len(core.running) < sequences or any(sequence.output_length == 0 for sequence in core.running):
        plan = core.step(0)
        core.commit(plan, [5] * len(plan.sampling))
    return core


def measure(sequences: int, prompt: int, waiting: int = 0) -> str:
    """One line of figures."""
    core = decoding(sequences, prompt, waiting)
    steps: list[float] = []
    commits: list[float] = []
    for _ in range(STEPS):
        start = thread_time()
        plan = core.step(0)
        middle = thread_time()
        core.commit(plan, [5] * len(plan.sampling))
        steps.append((middle - start) * 1e3)
        commits.append((thread_time() - middle) * 1e3)
    step, commit = sorted(steps), sorted(commits)
    return (
        f"{sequences:4} decoding, prompts of {prompt:5}, {waiting:5} waiting:"
        f"  step p50 {step[STEPS // 2]:.3f} p99 {step[STEPS * 99 // 100]:.3f} ms"
        f"  commit p50 {commit[STEPS // 2]:.3f} p99 {commit[STEPS * 99 // 100]:.3f} ms"
    )


if __name__ == "__main__":
    for sequences, prompt, waiting in ((32, 100, 0), (256, 100, 0), (256, 1500, 0), (256, 100, 2000)):
        print(measure(sequences, prompt, waiting), flush=True)
