"""Which queue a model version's requests wait in: gateways and workers must name and declare it alike."""

from headrace.v1.model_pb2 import ModelVersion
from services.common.broker.port import QueueSpec

DEFAULT_MAX_REQUESTS = 1000
DEFAULT_TIMEOUT = 60.0
# A long generation is no hung one.
DEFAULT_TEXT_TIMEOUT = 600.0
DEFAULT_MAX_ATTEMPTS = 3


def queue_name(model: str, version: int) -> str:
    """The queue of one model version."""
    return f"headrace.{model}.{version}"


def queue_spec(version: ModelVersion) -> QueueSpec:
    """The queue as the version's `queue` settings ask for it."""
    limit = version.spec.queue.max_requests or DEFAULT_MAX_REQUESTS
    return QueueSpec(name=queue_name(version.name, version.version), max_length=limit)
