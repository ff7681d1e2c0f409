"""Which queues a model version's requests wait in: gateways and workers must name and declare them alike.

There are two: one for callers, and one for what runs behind them, in their pauses (jobs).
"""

from headrace.v1.model_pb2 import ModelVersion
from services.common.broker.port import QueueSpec

DEFAULT_MAX_REQUESTS = 1000
DEFAULT_TIMEOUT = 60.0
# A long generation is no hung one.
DEFAULT_TEXT_TIMEOUT = 600.0
DEFAULT_MAX_ATTEMPTS = 3
# What runs behind callers may have to wait for them long.
BACKGROUND_TIMEOUT = 900.0


def queue_name(model: str, version: int, *, background: bool = False) -> str:
    """A queue of one model version."""
    return f"headrace.{model}.{version}{'.background' if background else ''}"


def queue_spec(version: ModelVersion, *, background: bool = False) -> QueueSpec:
    """The queue as the version's `queue` settings ask for it."""
    limit = version.spec.queue.max_requests or DEFAULT_MAX_REQUESTS
    return QueueSpec(name=queue_name(version.name, version.version, background=background), max_length=limit)
