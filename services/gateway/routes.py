"""Which version of which model a request goes to. Pure: the catalogue watcher feeds it, handlers ask it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from headrace.v1.model_pb2 import Model, ModelVersion
from headrace.v1.rollout_pb2 import Rollout
from services.common.errors import NotFound
from services.common.queues import (
    BACKGROUND_TIMEOUT,
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_REQUESTS,
    DEFAULT_TEXT_TIMEOUT,
    DEFAULT_TIMEOUT,
    queue_name,
)
from services.gateway.protocol.signature import Signature
from services.gateway.rate import TokenBucket, bucket_of
from services.gateway.split import GOVERNED, Split, place_of, place_of_nth

# More than any version has; Python refuses to read thousands of them.
MAX_DIGITS = 19


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One model version as the hot path wants it.

    Attributes:
        queue: the queue its requests wait in.
        signature: what a request must look like.
        max_requests: most requests admitted and unanswered at this gateway.
        timeout: seconds for requests that bring no deadline.
        max_attempts: granted claims after which a request is given up.
        text: it is a language model.
        levels, level: how many priority levels its requests have, and which one those have that name none; 0: none.
        rate: what bounds its requests a second; None: nothing.
        behind: the same for requests that let everybody else go first; None: this is that one.
    """

    name: str
    version: int
    spec_version: ModelVersion
    queue: str
    signature: Signature
    max_requests: int
    timeout: float
    max_attempts: int
    text: bool
    levels: int = 0
    level: int = 0
    rate: TokenBucket | None = None
    behind: "Route | None" = None

    @property
    def background(self) -> bool:
        """Its requests let everybody else go first."""
        return self.behind is None


def route_of(version: ModelVersion) -> Route:
    """Prepares a version for the hot path."""
    queue, text = version.spec.queue, version.spec.HasField("text")
    route = Route(
        name=version.name,
        version=version.version,
        spec_version=version,
        queue=queue_name(version.name, version.version),
        signature=Signature.of(version.spec),
        max_requests=queue.max_requests or DEFAULT_MAX_REQUESTS,
        timeout=queue.default_timeout_ms / 1000 or (DEFAULT_TEXT_TIMEOUT if text else DEFAULT_TIMEOUT),
        max_attempts=queue.max_attempts or DEFAULT_MAX_ATTEMPTS,
        text=text,
        levels=queue.priority_levels,
        level=queue.default_priority_level,
        rate=bucket_of(queue.requests_per_second, queue.burst),
    )
    waiting = queue_name(version.name, version.version, background=True)
    behind = replace(route, queue=waiting, timeout=max(route.timeout, BACKGROUND_TIMEOUT))
    return replace(route, behind=behind)


@dataclass(slots=True)
class _Entry:
    versions: dict[int, Route] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    latest: Route | None = None
    rollout: Rollout | None = None
    split: Split | None = None
    unloaded: bool = False


@dataclass(frozen=True, slots=True)
class Pick:
    """Where one request goes.

    Attributes:
        shadow: where a copy of it goes, whose answer nobody gets.
    """

    route: Route
    shadow: Route | None = None


class Routes:
    """Name and version → route. Keeps serving what it last knew while the registry is away.

    Args:
        on_gone: called with each route whose version was deleted.
    """

    def __init__(self, on_gone: Callable[[Route], None] = lambda route: None) -> None:
        self._entries: dict[str, _Entry] = {}
        self.any_text = False
        self._unkeyed = 0
        self._on_gone = on_gone

    def update(self, model: Model) -> None:
        """Takes the whole of one model, new or changed. Routes of unchanged versions keep their identity."""
        old = self._entries.get(model.name, _Entry())
        versions = {
            version.version: old.versions.get(version.version) or route_of(version) for version in model.versions
        }
        latest = versions[max(versions)] if versions else None
        self.any_text = self.any_text or any(route.text for route in versions.values())
        rollout = model.rollout if model.HasField("rollout") else None
        self._entries[model.name] = _Entry(
            versions, dict(model.aliases), latest, rollout, _split(rollout), model.unloaded
        )
        for number in old.versions.keys() - versions.keys():
            self._on_gone(old.versions[number])

    def remove(self, name: str) -> None:
        """Forgets a deleted model."""
        entry = self._entries.pop(name, _Entry())
        for route in entry.versions.values():
            self._on_gone(route)

    def names(self) -> list[str]:
        """The names of all models, sorted."""
        return sorted(self._entries)

    def versions(self, name: str) -> list[Route]:
        """All versions of a model, ascending. Raises NotFound."""
        return [route for _, route in sorted(self._entry(name).versions.items())]

    def aliases(self, route: Route) -> list[str]:
        """The names that lead to this version, sorted."""
        aliases = self._entries.get(route.name, _Entry()).aliases
        return sorted(alias for alias, version in aliases.items() if version == route.version)

    def unloaded(self, name: str) -> bool:
        """Somebody took the model out of service. Raises NotFound."""
        return self._entry(name).unloaded

    def __iter__(self) -> Iterator[Route]:
        for name in self.names():
            yield from self.versions(name)

    def rollouts(self) -> Iterator[tuple[str, Rollout]]:
        """Models with a rollout."""
        for name, entry in self._entries.items():
            if entry.rollout is not None:
                yield name, entry.rollout

    def pick(self, name: str, version: str, key: Callable[[], str]) -> Pick:
        """Where a request for `version` goes; as `resolve` says, but that a rollout may give it to its candidate.

        Args:
            key: gives what the choice sticks to; requests without a key ("") are dealt out evenly.
        """
        entry = self._served(name)
        split = entry.split
        if split is None or version not in GOVERNED:
            return Pick(self.resolve(name, version))
        if said := key():
            at = place_of(name, said)
        else:
            self._unkeyed += 1
            at = place_of_nth(self._unkeyed)
        chosen, copied = split.choose(at)
        stable = entry.versions[split.stable]
        return Pick(entry.versions.get(chosen, stable), entry.versions.get(copied))

    def resolve(self, name: str, version: str) -> Route:
        """The route of `version`: a number, an alias, "latest", or "" for a rollout's stable version, else the latest.

        Raises:
            NotFound: no such model or version, or it is unloaded; the message names what there is.
        """
        entry = self._served(name)
        if entry.latest is None:
            raise NotFound(f"model '{name}' has no versions; publish one with: headrace push {name} PATH")
        if not version:
            return entry.latest if entry.split is None else entry.versions[entry.split.stable]
        if version == "latest" and version not in entry.aliases:
            return entry.latest
        is_number = version.isascii() and version.isdigit() and len(version) <= MAX_DIGITS
        number = int(version) if is_number else entry.aliases.get(version)
        route = entry.versions.get(number) if number is not None else None
        if route is None:
            known = ", ".join([*map(str, sorted(entry.versions)), *sorted(entry.aliases)]) or "none"
            raise NotFound(f"model '{name}' has no version or alias '{version[:128]}'; there are: {known}")
        return route

    def _served(self, name: str) -> _Entry:
        entry = self._entry(name)
        if entry.unloaded:
            raise NotFound(f"model '{name}' is unloaded; bring it back with: headrace load {name}")
        return entry

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            if not name:
                raise NotFound("the request names no model; set model_name")
            raise NotFound(f"no model '{name[:128]}'; `headrace models` lists what there is")
        return entry


def _split(rollout: Rollout | None) -> Split | None:
    if rollout is None:
        return None
    return Split(rollout.stable, rollout.candidate, rollout.weight / 100, rollout.shadow)
