"""What an autoscaler is told by its environment."""

from pathlib import Path

from pydantic import Field

from services.autoscaler.policy.config import Limits, Mode, PolicyConfig
from services.common.settings import ServiceSettings


class AutoscalerSettings(ServiceSettings):
    """Settings of an autoscaler, HEADRACE_* in the environment; times in seconds.

    Attributes:
        listen: host:port of AutoscalerService and KEDA's ExternalScaler.
        advertise: host:port at which others reach it, told by standbys; empty: as `listen`.
        store: where the lease and the limits lie: the registry's store will do.
        orchestrator: `processes:///path/of/a/socket`, `docker://project/service`,
            `kubernetes://namespace/deployment`, or `none`: decisions are made and told, KEDA or another acts on them.
        min_workers, max_workers: until SetLimits says otherwise.
        scale_*: see PolicyConfig.
        stuck_seconds: a worker with work in hand and no progress for so long is replaced.
    """

    listen: str = "127.0.0.1:8005"
    advertise: str = ""
    store: str = Field(default_factory=lambda: Path(".headrace/store").resolve().as_uri())
    orchestrator: str = "none"
    min_workers: int = Field(default=0, ge=0)
    max_workers: int = Field(default=1, ge=1)
    scale_mode: Mode = Mode.DRAIN_TIME
    scale_target: float = Field(default=20.0, gt=0)
    scale_drain_seconds: float = Field(default=5.0, gt=0)
    scale_jobs_seconds: float = Field(default=300.0, gt=0)
    scale_utilisation: float = Field(default=0.7, gt=0, le=1)
    scale_stable_seconds: float = Field(default=60.0, gt=0)
    scale_panic_seconds: float = Field(default=6.0, gt=0)
    scale_down_seconds: float = Field(default=60.0, ge=0)
    scale_idle_seconds: float = Field(default=60.0, ge=0)
    scale_burst_half_life: float = Field(default=1200.0, gt=0)
    scale_start_seconds: float = Field(default=5.0, ge=0)
    scale_service_seconds: float = Field(default=0.05, gt=0)
    stuck_seconds: float = Field(default=120.0, gt=0)

    def policy(self) -> PolicyConfig:
        """The policy's configuration. Raises InvalidArgument."""
        return PolicyConfig(
            limits=Limits(self.min_workers, self.max_workers),
            mode=self.scale_mode,
            target=self.scale_target,
            drain_seconds=self.scale_drain_seconds,
            jobs_seconds=self.scale_jobs_seconds,
            utilisation=self.scale_utilisation,
            stable_window=self.scale_stable_seconds,
            panic_window=self.scale_panic_seconds,
            scale_down_window=self.scale_down_seconds,
            idle_seconds=self.scale_idle_seconds,
            burst_half_life=self.scale_burst_half_life,
            start_seconds=self.scale_start_seconds,
            service_seconds=self.scale_service_seconds,
        )
