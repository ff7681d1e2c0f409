"""What the job service is told by its environment."""

from pathlib import Path

from pydantic import Field

from services.common.settings import ServiceSettings


class JobsSettings(ServiceSettings):
    """Settings of the job service, HEADRACE_* in the environment.

    Attributes:
        listen: host:port of JobService and FileService.
        advertise: how this process names itself to others of its kind; empty: as `listen`.
        store: where jobs, files and results lie: the registry's store will do.
        gateways: host:port of the gateways' HTTP, or of their balancer; several with commas between.
        api_key: sent to gateways that ask for keys; its tenant needs `on_behalf: true`: jobs count for theirs.
        jobs_in_flight: most requests of jobs under way.
        jobs_keep_days: how long ended jobs, their results and uploaded files are kept; 0: until somebody deletes them.
    """

    listen: str = "127.0.0.1:8006"
    advertise: str = ""
    store: str = Field(default_factory=lambda: Path(".headrace/store").resolve().as_uri())
    gateways: str = "127.0.0.1:8001"
    api_key: str = ""
    jobs_in_flight: int = Field(default=128, ge=1, le=10_000)
    jobs_keep_days: float = Field(default=90.0, ge=0)
