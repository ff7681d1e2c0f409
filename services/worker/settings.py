"""What a worker is told by its environment."""

from pydantic import ByteSize, Field

from services.common.settings import ServiceSettings


class WorkerSettings(ServiceSettings):
    """Settings of a worker, HEADRACE_* in the environment.

    Attributes:
        listen: host:port of health and reflection; port 0 picks one.
        worker_id: how the fleet knows it, and how it remembers what ended its last process; empty: a random name.
        cache: folder for models' files; workers of one machine may share it.
        models: comma-separated names to serve; empty: all.
        threads: intra-op threads of the CPU runtimes.
        memory_budget: bytes that models may take together ("8GiB", "512MiB"); 0: no limit. The least recently used are
            evicted for those that are asked for.
        memory_limit: bytes that the process may hold before it drains and ends, to be started again; 0: what guard.py
            makes of the budget.
        residency_seconds: how long a model is kept at least once it was loaded; twice its load's time,
            if that is more. 0: it may go at once.
        idle_seconds: a version that is neither the latest nor named by an alias or a rollout is unloaded after so long
            without a request.
        loads: most models loaded at a time.
        drain_seconds: how long SIGTERM waits for work in hand.
    """

    listen: str = "127.0.0.1:0"
    worker_id: str = ""
    cache: str = ".headrace/cache"
    models: str = ""
    threads: int = Field(default=1, ge=1)
    memory_budget: ByteSize = ByteSize(0)
    memory_limit: ByteSize = ByteSize(0)
    residency_seconds: float = Field(default=0.25, ge=0)
    idle_seconds: float = Field(default=300.0, ge=0)
    loads: int = Field(default=1, ge=1)
    drain_seconds: float = Field(default=30.0, ge=0)

    def model_names(self) -> set[str]:
        """The names in `models`."""
        return {name.strip() for name in self.models.split(",") if name.strip()}
