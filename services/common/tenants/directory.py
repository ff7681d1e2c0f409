"""The tenants file, checked: tenants by name and by key, and whose tokens are believed."""

from dataclasses import dataclass, field
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from headrace.keys import is_hash_line, key_id, matches
from headrace.packages.plain_yaml import plain
from services.common.errors import InvalidArgument, Unauthenticated
from services.common.tenants.tenant import Tenant


def _hash_line(line: str) -> str:
    if not is_hash_line(line):
        raise ValueError("expected ID:SHA256, a line that `headrace key` prints; never the key itself")
    return line


class TenantEntry(BaseModel):
    """What the file says of one tenant; see Tenant."""

    model_config = ConfigDict(extra="forbid")

    keys: list[Annotated[str, AfterValidator(_hash_line)]] = []
    priority: int = Field(default=0, ge=-8, le=8)
    requests_per_second: float = Field(default=0.0, ge=0)
    burst: int = Field(default=0, ge=0)
    max_concurrent: int = Field(default=0, ge=0)
    models: list[str] = ["*"]
    write: bool = False
    on_behalf: bool = False


class TokenRules(BaseModel):
    """Which JSON web tokens are believed.

    Attributes:
        issuer, audience: what a token's `iss` and `aud` must say.
        jwks: the issuer's public keys: an http(s) URL, or a file, seen from the tenants file's folder.
        tenant_claim: the claim that names the tenant.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    jwks: str = Field(min_length=1)
    tenant_claim: str = Field(default="sub", min_length=1)


class TenantsFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    tenants: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")], TenantEntry]
    tokens: TokenRules | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """What one reading of the file brought."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    tokens: TokenRules | None = None
    # By the key's id: what is left of the key, and whose it is.
    _keys: dict[str, tuple[str, Tenant]] = field(default_factory=dict)

    def owner(self, key: str) -> Tenant:
        """Whose API key this is. Raises Unauthenticated."""
        line, tenant = self._keys.get(key_id(key), ("", None))
        if tenant is None or not matches(key, line):
            raise Unauthenticated("the API key is not known here; it may have been withdrawn, ask for another")
        return tenant


def read_directory(text: str) -> Directory:
    """The directory that a tenants file describes. Raises InvalidArgument: what is wrong, and where."""
    try:
        said = TenantsFile.model_validate(yaml.safe_load(plain(text)) or {})
    except yaml.YAMLError as error:
        raise InvalidArgument(f"not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidArgument(f"{place or 'the file'}: {first['msg']}") from error
    tenants: dict[str, Tenant] = {}
    keys: dict[str, tuple[str, Tenant]] = {}
    for name, entry in said.tenants.items():
        tenant = tenants[name] = Tenant(
            name=name,
            priority=entry.priority,
            requests_per_second=entry.requests_per_second,
            burst=entry.burst,
            max_concurrent=entry.max_concurrent,
            models=tuple(entry.models),
            write=entry.write,
            on_behalf=entry.on_behalf,
        )
        for line in entry.keys:
            known = keys.setdefault(line.partition(":")[0], (line, tenant))
            if known[1] is not tenant:
                raise InvalidArgument(f"tenants.{name}.keys: '{known[1].name}' has a key of the same id; make another")
    return Directory(tenants, said.tokens, keys)
