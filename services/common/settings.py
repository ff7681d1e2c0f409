"""What every service process is told by its environment: HEADRACE_* variables, checked at start.

What must not stand in an environment (a broker's URL with its password) may lie in a file of the same name, in lower
case, in HEADRACE_SECRETS (/run/secrets, where Docker and Kubernetes put them): `/run/secrets/headrace_broker`.
"""

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)


class ServiceSettings(BaseSettings):
    """Settings that all services share; each service adds its own in its `settings.py`.

    Attributes:
        registry: host:port of the registry.
        broker: `embedded://host:port` or `amqp://user:password@host:port/vhost`.
        metrics: host:port of the Prometheus endpoint, by TLS where `tls_cert` is set; empty: none.
        otlp: OTLP/gRPC endpoint for traces and metrics, `http://host:port` or `https://host:port`; empty: none.
        traces_per_second: how many requests that bring no sampled trace context begin a trace of their own.
        tenants: file with the tenants (docs/tenants.md), for gateway, registry and single replica; empty: no keys are
            asked for.
        tls_cert, tls_key: files with this process's certificate and key (PEM), shown to callers and to those it calls;
            empty: callers speak plain text.
        tls_ca: file with the issuers of the certificates of those it calls; empty: they are called in plain text.
        tls_client_ca: file with the issuers of callers' certificates; empty: callers need none.
        tls_name: what certificates of those it calls must be for; empty: the host that is dialled.
        tls_store_ca: file with the issuers of the S3 store's certificate; empty: those that boto3 and Python know.
        log_level: DEBUG, INFO, WARNING or ERROR.
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", extra="ignore")

    registry: str = "127.0.0.1:8003"
    broker: str = "embedded://127.0.0.1:8004"
    metrics: str = ""
    otlp: str = ""
    traces_per_second: float = Field(default=5.0, ge=0)
    tenants: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    tls_client_ca: str = ""
    tls_name: str = ""
    tls_store_ca: str = ""
    log_level: str = "INFO"

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then files."""
        folder = Path(os.environ.get("HEADRACE_SECRETS", "/run/secrets"))
        chosen = (named["init_settings"], named["env_settings"])
        return (*chosen, SecretsSettingsSource(settings_cls, folder)) if folder.is_dir() else chosen
