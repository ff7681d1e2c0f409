"""One tenant: what he may use, how much, and how soon. Pure."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from services.common.errors import PermissionDenied


@dataclass(frozen=True, slots=True)
class Tenant:
    """As the tenants file has it.

    Attributes:
        priority: where tenants wait for the same, each level counts double: see `weight`.
        requests_per_second: what each gateway admits, on average; 0: any number.
        burst: how many of them may come at once after a pause; 0: as many as come in a second.
        max_concurrent: requests under way at each gateway; 0: any number.
        models: patterns of the names that he may use, as in a shell: `*`, `rank-*`.
        write: he may change the registry, as far as `models` goes, and see what everybody does.
        on_behalf: he may call in other tenants' names: the job service, which sends their requests.
    """

    name: str
    priority: int = 0
    requests_per_second: float = 0.0
    burst: int = 0
    max_concurrent: int = 0
    models: tuple[str, ...] = ("*",)
    write: bool = False
    on_behalf: bool = False

    @property
    def weight(self) -> float:
        """His share of the compute where others wait, beside the 1 of priority 0. Nobody's is nothing."""
        return 2.0**self.priority

    def may_use(self, model: str) -> bool:
        """Whether the model is one of his."""
        return any(pattern == "*" or fnmatchcase(model, pattern) for pattern in self.models)

    def check_use(self, model: str) -> None:
        """Raises PermissionDenied where the model is not one of his, whether there is such a model or not."""
        if not self.may_use(model):
            raise PermissionDenied(
                f"tenant '{self.name}' may not use model '{model[:128]}'; add it to the tenant's models in the tenants"
                " file"
            )

    def check_write(self, model: str = "") -> None:
        """Raises PermissionDenied where he may not change the registry, or not this model."""
        if not self.write:
            raise PermissionDenied(
                f"tenant '{self.name}' may not do this; it takes a tenant with `write: true` in the tenants file"
            )
        if model:
            self.check_use(model)
