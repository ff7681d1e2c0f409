"""What vLLM tells of itself, as the port has it."""

from typing import Any

from services.worker.llm.port import EngineStats


class Figures:
    """What vLLM tells of itself; implements its StatLoggerBase."""

    def __init__(self) -> None:
        self.blocks = 0
        self._running = self._waiting = self._preempted = self._hit = self._asked = 0
        self._usage = 0.0

    def __call__(self, config: Any, index: int = 0) -> "Figures":
        """The factory of itself."""
        return self

    def record(self, scheduler_stats: Any, iteration_stats: Any, *rest: Any, **more: Any) -> None:
        """After each step."""
        if scheduler_stats is not None:
            self._running, self._waiting = scheduler_stats.num_running_reqs, scheduler_stats.num_waiting_reqs
            self._usage = scheduler_stats.kv_cache_usage
            self._asked += scheduler_stats.prefix_cache_stats.queries
            self._hit += scheduler_stats.prefix_cache_stats.hits
        if iteration_stats is not None:
            self._preempted += iteration_stats.num_preempted_reqs

    def log(self) -> None:
        """Our metrics are asked for, not logged."""

    def log_engine_initialized(self) -> None:
        """Likewise."""

    def record_sleep_state(self, *state: int) -> None:
        """It never sleeps."""

    def stats(self) -> EngineStats:
        """As of the last step."""
        return EngineStats(
            running=self._running,
            waiting=self._waiting,
            kv_blocks_used=round(self._usage * self.blocks),
            kv_blocks_total=self.blocks,
            prefix_tokens_hit=self._hit,
            prefix_tokens_asked=self._asked,
            preemptions=self._preempted,
        )
