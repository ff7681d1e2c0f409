"""What each tenant may have under way at this gateway, and how often he may ask."""

from dataclasses import dataclass

from services.common.errors import QueueFull
from services.common.tenants.tenant import Tenant
from services.gateway.rate import TokenBucket, bucket_of


@dataclass(slots=True)
class _Used:
    """One tenant's count, and the bucket that his rate made."""

    tenant: Tenant
    bucket: TokenBucket | None
    running: int = 0


class Quotas:
    """Counts requests by tenant. What the file changes counts from the next request on."""

    def __init__(self) -> None:
        self._used: dict[str, _Used] = {}

    def begin(self, tenant: Tenant, now: float) -> None:
        """One more request of his is under way; one `end` follows.

        Args:
            now: seconds, on any steady clock.

        Raises:
            QueueFull: that would be more than he may; it says when to come again.
        """
        used = self._used.get(tenant.name)
        if used is None or used.tenant is not tenant:
            used = self._renew(tenant)
        if tenant.max_concurrent and used.running >= tenant.max_concurrent:
            raise QueueFull(
                f"tenant '{tenant.name}' has {used.running} requests under way at this gateway, all that its"
                " max_concurrent allows; try again when some are answered"
            )
        if used.bucket is not None and (seconds := used.bucket.take(now)):
            raise QueueFull(
                f"tenant '{tenant.name}' may send {tenant.requests_per_second:g} requests a second to this gateway; try"
                f" again in {seconds:.2g} s",
                retry_after=seconds,
            )
        used.running += 1

    def end(self, tenant: Tenant) -> None:
        """It is answered, or given up."""
        self._used[tenant.name].running -= 1

    def _renew(self, tenant: Tenant) -> _Used:
        """The file was read again. A rate that is the same keeps its bucket: reading it gives nobody a burst."""
        old = self._used.get(tenant.name)
        bucket = bucket_of(tenant.requests_per_second, tenant.burst)
        if old is not None and (old.tenant.requests_per_second, old.tenant.burst) == (
            tenant.requests_per_second,
            tenant.burst,
        ):
            bucket = old.bucket
        self._used[tenant.name] = used = _Used(tenant, bucket, old.running if old is not None else 0)
        return used
