"""The whole path as a subject: one client, gateway, queue and a worker with the native engine, each its own process."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.llm.workloads import VOCABULARY, Work
from headrace import AsyncClient, Client
from headrace.client.errors import HeadraceError
from headrace.client.registry import RegistryClient
from tests.support.stack import running_stack, wait_until

MODEL = "llama"


class WholePath:
    """Streams every request through `headrace up`."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._parts = ExitStack()
        self._runner = self._parts.enter_context(asyncio.Runner())
        data = Path(self._parts.enter_context(TemporaryDirectory(prefix="headrace-llm-")))
        stack = self._parts.enter_context(running_stack(data, environment={"HEADRACE_THREADS": str(threads)}))
        self._address = stack.address("gateway")
        self._rounds = 0
        with RegistryClient(stack.address("registry")) as registry, Client(self._address) as client:
            registry.push(MODEL, folder)

            def ready() -> bool:
                try:
                    return client.model_ready(MODEL)
                except HeadraceError:  # the gateway has not heard of it yet
                    return False

            wait_until(ready, "the model to be loaded", 120)

    def __call__(self, works: list[Work]) -> int:
        """The tokens that came. Each round's prompts are other ones, which find nothing in the prefix cache."""
        self._rounds += 1
        return self._runner.run(self._all(works, self._rounds))

    async def _all(self, works: list[Work], shift: int) -> int:
        async with AsyncClient(self._address) as client:
            return sum(await asyncio.gather(*(self._one(client, work, shift) for work in works)))

    async def _one(self, client: AsyncClient, work: Work, shift: int) -> int:
        prompt = [1 + (token + shift) % (VOCABULARY - 1) for token in work.prompt]
        tokens = 0
        async for piece in client.stream(
            MODEL, prompt, timeout=600, temperature=0, max_tokens=work.outputs, ignore_eos=True
        ):
            tokens += len(piece.token_ids)
        return tokens

    def close(self) -> None:
        """Ends the stack."""
        self._parts.close()
