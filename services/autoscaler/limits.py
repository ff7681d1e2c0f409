"""What an operator has set by SetLimits and Pause, kept in the object store: whoever becomes active goes on with it."""

import json
from dataclasses import dataclass

from services.autoscaler.policy.config import Limits
from services.common.errors import InvalidArgument, NotFound
from services.common.objects.connect import one, whole
from services.common.objects.port import ObjectStore

KEY = "autoscaler/limits"


@dataclass(frozen=True, slots=True)
class Orders:
    """`limits` is None where nobody has set any."""

    limits: Limits | None = None
    paused: bool = False


async def load(store: ObjectStore) -> Orders:
    """What was set last. Raises Unavailable, and InvalidArgument where the object is not one of ours."""
    try:
        said = json.loads(await whole(store, KEY))
        limits = Limits(*said["limits"]) if said["limits"] else None
        return Orders(limits, bool(said["paused"]))
    except NotFound:
        return Orders()
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(f"object '{KEY}' cannot be read ({error}); delete it to begin anew") from error


async def save(store: ObjectStore, orders: Orders) -> None:
    """Raises Unavailable."""
    limits = [orders.limits.least, orders.limits.most] if orders.limits else None
    await store.put(KEY, one(json.dumps({"limits": limits, "paused": orders.paused}).encode()))
