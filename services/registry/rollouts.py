"""How rollouts change, and when a new version is taken back. Pure.

A version goes from trial (the candidate, which gets a share of the traffic or copies of it) to stable, and back. Each
change is a new revision made from the one before.
"""

from collections.abc import Mapping

from headrace.v1.rollout_pb2 import PromoteRequest, Rollout
from services.common.errors import FailedPrecondition, InvalidArgument
from services.common.outcomes import Outcomes

DEFAULT_ERROR_RATE = 0.05
DEFAULT_REQUESTS = 20
DEFAULT_WATCH_SECONDS = 300


def promoted(current: Rollout | None, wanted: PromoteRequest, versions: list[int], now_ms: int) -> Rollout:
    """The revision after `current` in which the version is stable, or on trial.

    Args:
        current: None: the model has no rollout yet; its stable version is the newest beside the promoted one.
        versions: all of the model's.

    Raises:
        InvalidArgument: weight or bounds make no sense.
        FailedPrecondition: there is no other version to try this one beside.
    """
    if wanted.weight > 100:
        raise InvalidArgument(f"weight {wanted.weight}: expected 0 to 100 per cent")
    if not 0 <= wanted.bounds.max_error_rate <= 1:
        raise InvalidArgument(f"max_error_rate {wanted.bounds.max_error_rate}: expected a share from 0 to 1")
    others = [number for number in versions if number != wanted.version]
    stable = current.stable if current is not None else max(others, default=wanted.version)
    made = Rollout(bounds=wanted.bounds, changed_unix_ms=now_ms, revision=_next(current))
    if wanted.weight == 100 and not wanted.shadow:
        made.stable, made.reason = wanted.version, f"version {wanted.version} promoted"
        if stable != wanted.version:
            made.previous = stable
        elif current is not None:
            made.previous = current.previous
        return made
    if stable == wanted.version:
        raise FailedPrecondition(
            f"version {wanted.version} is what callers get already; it cannot be on trial beside itself"
        )
    made.stable, made.candidate, made.weight, made.shadow = stable, wanted.version, wanted.weight, wanted.shadow
    made.previous = current.previous if current is not None else 0
    how = "shadows" if wanted.shadow else "gets"
    made.reason = f"version {wanted.version} {how} {wanted.weight} % of the requests of version {stable}"
    return made


def rolled_back(current: Rollout | None, reason: str, now_ms: int) -> Rollout:
    """The revision after `current` without its new version. Raises FailedPrecondition: nothing to undo."""
    if current is None or not (current.candidate or current.previous):
        raise FailedPrecondition("there is no earlier version to go back to: nothing was promoted")
    made = Rollout(
        revision=_next(current), stable=current.stable, bounds=current.bounds, reason=reason, changed_unix_ms=now_ms
    )
    if current.candidate:
        made.previous = current.previous
    else:
        made.stable = current.previous
    return made


def watched(rollout: Rollout, now_ms: int) -> int:
    """The version whose outcomes decide: the candidate, or what became stable a moment ago; 0: none."""
    if rollout.candidate:
        return rollout.candidate if rollout.weight else 0
    seconds = rollout.bounds.watch_seconds or DEFAULT_WATCH_SECONDS
    fresh = now_ms - rollout.changed_unix_ms < seconds * 1000
    return rollout.stable if rollout.previous and fresh else 0


def broken_bound(rollout: Rollout, outcomes: Mapping[int, Outcomes], now_ms: int) -> str:
    """Why the new version must be taken back; empty: it need not."""
    version = watched(rollout, now_ms)
    seen, bounds = outcomes.get(version, Outcomes()), rollout.bounds
    if not version or seen.requests < (bounds.min_requests or DEFAULT_REQUESTS):
        return ""
    allowed = bounds.max_error_rate or DEFAULT_ERROR_RATE
    if seen.error_rate > allowed:
        return (
            f"version {version} was taken back: {seen.failed} of {seen.requests} requests failed"
            f" ({seen.error_rate:.1%}, allowed are {allowed:.1%})"
        )
    if bounds.max_p99_ms and seen.p99_ms() > bounds.max_p99_ms:
        return f"version {version} was taken back: p99 is {seen.p99_ms():.1f} ms, allowed are {bounds.max_p99_ms:g} ms"
    return ""


def _next(current: Rollout | None) -> int:
    return current.revision + 1 if current is not None else 1
