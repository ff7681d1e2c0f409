"""Who may change the registry: tenants that may write. Reading is open: workers and gateways read all the time."""

from collections.abc import Mapping
from typing import Any

from headrace.v1.registry_pb2 import PublishVersionRequest
from services.common.rpc import Check
from services.common.tenants.access import Access

# What the other processes say and ask; whatever is not named here takes a key.
_OPEN = (
    "/headrace.v1.RegistryService/ListModels",
    "/headrace.v1.RegistryService/GetModel",
    "/headrace.v1.RegistryService/LocateFiles",
    "/headrace.v1.RegistryService/WatchModels",
    "/headrace.v1.RolloutService/ReportOutcomes",
    "/headrace.v1.FleetService/",
    "/grpc.",
)


def writers_only(access: Access) -> Check:
    """Looks at the key of each call that may change something; the tenant must be allowed the model, too.

    And those that an ensemble's steps name: who may call it has them run.
    """

    def check(method: str, metadata: Mapping[str, str | bytes], request: Any) -> None:
        if method.startswith(_OPEN):
            return
        tenant = access.tenant_of(metadata)
        tenant.check_write(getattr(request, "name", ""))
        if isinstance(request, PublishVersionRequest):
            for step in request.spec.ensemble.steps:
                tenant.check_use(step.model)

    return check
