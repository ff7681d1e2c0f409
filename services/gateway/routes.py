"""Which version of which model a request goes to. Pure: the catalogue watcher feeds it, handlers ask it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from headrace.v1.model_pb2 import Model, ModelVersion
from services.common.errors import NotFound
from services.common.queues import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_REQUESTS,
    DEFAULT_TEXT_TIMEOUT,
    DEFAULT_TIMEOUT,
    queue_name,
)
from services.gateway.protocol.signature import Signature

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


def route_of(version: ModelVersion) -> Route:
    """Prepares a version for the hot path."""
    queue, text = version.spec.queue, version.spec.HasField("text")
    return Route(
        name=version.name,
        version=version.version,
        spec_version=version,
        queue=queue_name(version.name, version.version),
        signature=Signature.of(version.spec),
        max_requests=queue.max_requests or DEFAULT_MAX_REQUESTS,
        timeout=queue.default_timeout_ms / 1000 or (DEFAULT_TEXT_TIMEOUT if text else DEFAULT_TIMEOUT),
        max_attempts=queue.max_attempts or DEFAULT_MAX_ATTEMPTS,
        text=text,
    )


@dataclass(slots=True)
class _Entry:
    versions: dict[int, Route] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    latest: Route | None = None


class Routes:
    """Name and version → route. Keeps serving what it last knew while the registry is away.

    Args:
        on_gone: called with each route whose version was deleted.
    """

    def __init__(self, on_gone: Callable[[Route], None] = lambda route: None) -> None:
        self._entries: dict[str, _Entry] = {}
        self.any_text = False
        self._on_gone = on_gone

    def update(self, model: Model) -> None:
        """Takes the whole of one model, new or changed. Routes of unchanged versions keep their identity."""
        old = self._entries.get(model.name, _Entry())
        versions = {
            version.version: old.versions.get(version.version) or route_of(version) for version in model.versions
        }
        latest = versions[max(versions)] if versions else None
        self.any_text = self.any_text or any(route.text for route in versions.values())
        self._entries[model.name] = _Entry(versions, dict(model.aliases), latest)
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

    def __iter__(self) -> Iterator[Route]:
        for name in self.names():
            yield from self.versions(name)

    def resolve(self, name: str, version: str) -> Route:
        """The route of `version`: a number, an alias, or "" for the latest.

        Raises:
            NotFound: no such model or version; the message names what there is.
        """
        entry = self._entry(name)
        if not version:
            if entry.latest is None:
                raise NotFound(f"model '{name}' has no versions; publish one with: headrace push {name} PATH")
            return entry.latest
        is_number = version.isascii() and version.isdigit() and len(version) <= MAX_DIGITS
        number = int(version) if is_number else entry.aliases.get(version)
        route = entry.versions.get(number) if number is not None else None
        if route is None:
            known = ", ".join([*map(str, sorted(entry.versions)), *sorted(entry.aliases)]) or "none"
            raise NotFound(f"model '{name}' has no version or alias '{version[:128]}'; there are: {known}")
        return route

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            if not name:
                raise NotFound("the request names no model; set model_name")
            raise NotFound(f"no model '{name[:128]}'; `headrace models` lists what there is")
        return entry
