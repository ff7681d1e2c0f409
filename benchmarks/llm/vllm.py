"""vLLM as a subject: in a process and an environment of its own (`make test-vllm` makes .venv-vllm), fed by JSON."""

import json
import os
import subprocess
from pathlib import Path

from benchmarks.llm.workloads import Work

PYTHON = Path(__file__).resolve().parents[2] / ".venv-vllm" / "bin" / "python"
# Runs there. One line in: prompts, and how many tokens each gets; one line out: how many came.
_SERVER = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
from vllm import LLM, SamplingParams
folder, dtype = sys.argv[1:]
limits = {"max_model_len": 2048, "max_num_seqs": 64, "max_num_batched_tokens": 512}
llm = LLM(model=folder, dtype=dtype, skip_tokenizer_init=True, **limits)
print("ready", file=answers)
for line in sys.stdin:
    works = json.loads(line)
    llm.reset_prefix_cache()
    outputs = llm.generate(
        [{"prompt_token_ids": prompt} for prompt, _ in works],
        [SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False) for _, count in works],
        use_tqdm=False,
    )
    print(sum(len(output.outputs[0].token_ids) for output in outputs), file=answers)
"""


class Vllm:
    """vLLM's offline engine; its first start compiles for minutes."""

    def __init__(self, folder: Path, dtype: str, threads: int) -> None:
        if not PYTHON.exists():
            raise FileNotFoundError(f"{PYTHON} is missing; `make test-vllm` makes vLLM's environment")
        # By itself it leaves a core to others.
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
        environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": cores}
        self._log = (folder / "vllm.log").open("w")
        self._process = subprocess.Popen(
            [str(PYTHON), "-c", _SERVER, str(folder), dtype],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
        )
        self._line()

    def __call__(self, works: list[Work]) -> int:
        """The tokens that came."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([[list(work.prompt), work.outputs] for work in works]) + "\n")
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"vLLM ended with {self._process.wait()}; see {self._log.name}")
        return line

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._log.close()
