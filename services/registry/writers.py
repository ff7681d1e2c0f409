"""Who may change the registry: tenants that may write. Reading is open: workers and gateways read all the time."""

from collections.abc import Mapping

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
    """Looks at the key of each call that may change something; the tenant must be allowed the model, too."""

    def check(method: str, metadata: Mapping[str, str | bytes], model: str) -> None:
        if not method.startswith(_OPEN):
            access.tenant_of(metadata).check_write(model)

    return check
