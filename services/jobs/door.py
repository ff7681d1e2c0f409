"""Who may have jobs, and see which: each tenant his own; those that may write, everybody's.

Somebody else's job is one that does not exist: refusals would tell that there is one.
"""

from collections.abc import Mapping
from typing import Any

from services.common.tenants.access import Access
from services.common.tenants.tenant import Tenant


class Door:
    """Knows callers.

    Args:
        access: None: no keys are asked for, and everybody sees everything.
    """

    def __init__(self, access: Access | None) -> None:
        self._access = access

    def check(self, method: str, metadata: Mapping[str, str | bytes], request: Any) -> None:
        """Looks at the key of each call but health and reflection. Raises Unauthenticated."""
        if self._access is not None and not method.startswith("/grpc."):
            self._access.tenant_of(metadata)

    def caller(self, context: Any) -> Tenant | None:
        """Whose call this is. Raises Unauthenticated."""
        if self._access is None:
            return None
        return self._access.tenant_of(dict(context.invocation_metadata() or ()))


def owner_of(caller: Tenant | None) -> str:
    """The name under which the caller's jobs and files are kept."""
    return caller.name if caller is not None else ""


def sees_all(caller: Tenant | None) -> bool:
    """Whether the caller may see what is anybody's."""
    return caller is None or caller.write


def may_see(caller: Tenant | None, owner: str) -> bool:
    """Whether the caller may see, cancel and delete what is the owner's."""
    return caller is None or caller.write or caller.name == owner
