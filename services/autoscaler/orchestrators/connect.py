"""From a URL to an orchestrator: the one place that knows the adapters."""

from urllib.parse import urlsplit

from services.autoscaler.orchestrators.port import Orchestrator
from services.common.errors import InvalidArgument


async def connect(url: str) -> Orchestrator | None:
    """None for `none`: others act on the decisions.

    Args:
        url: `processes:///path/of/a/socket`, `docker://project/service` or `kubernetes://namespace/deployment`.

    Raises:
        InvalidArgument: it is none of these.
        Unavailable: the place cannot be reached.
    """
    parts = urlsplit(url)
    name = parts.path.strip("/")
    match parts.scheme or url:
        case "none":
            return None
        case "processes" if parts.path:
            from services.autoscaler.orchestrators.processes import Processes  # noqa: PLC0415  # only what is used

            return Processes(parts.path)
        case "docker" if parts.netloc and name:
            from services.autoscaler.orchestrators.docker import DockerEngine  # noqa: PLC0415

            return await DockerEngine.connect(parts.netloc, name)
        case "kubernetes" if parts.netloc and name:
            from services.autoscaler.orchestrators.kubernetes import Deployment  # noqa: PLC0415

            return Deployment.in_cluster(parts.netloc, name)
    raise InvalidArgument(
        f"orchestrator '{url}': expected processes:///path/of/a/socket, docker://project/service,"
        " kubernetes://namespace/deployment or none"
    )
