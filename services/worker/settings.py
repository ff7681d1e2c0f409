"""What a worker is told by its environment."""

from pydantic import Field

from services.common.settings import ServiceSettings


class WorkerSettings(ServiceSettings):
    """Settings of a worker, HEADRACE_* in the environment.

    Attributes:
        listen: host:port of health and reflection; port 0 picks one.
        worker_id: how the fleet knows it; empty: a random name.
        cache: folder for models' files; workers of one machine may share it.
        models: comma-separated names to serve; empty: all.
        threads: intra-op threads of the CPU runtimes.
        drain_seconds: how long SIGTERM waits for work in hand.
    """

    listen: str = "127.0.0.1:0"
    worker_id: str = ""
    cache: str = ".headrace/cache"
    models: str = ""
    threads: int = Field(default=1, ge=1)
    drain_seconds: float = Field(default=30.0, ge=0)

    def model_names(self) -> set[str]:
        """The names in `models`."""
        return {name.strip() for name in self.models.split(",") if name.strip()}
