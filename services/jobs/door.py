"""Who may have jobs where there are tenants: those that may write.

Jobs run for the tenant of this service's own key, and their owners see each other's: that is for operators.
"""

from collections.abc import Mapping
from typing import Any

from services.common.rpc import Check
from services.common.tenants.access import Access


def operators_only(access: Access) -> Check:
    """Looks at the key of each call but health and reflection."""

    def check(method: str, metadata: Mapping[str, str | bytes], request: Any) -> None:
        if not method.startswith("/grpc."):
            access.tenant_of(metadata).check_write()

    return check
