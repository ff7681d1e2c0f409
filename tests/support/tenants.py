"""Tenants files for the tests, keys included, and an issuer of tokens."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from headrace.keys import hash_line, new_key

ISSUER, AUDIENCE = "https://login.example", "headrace"


class TenantsFile:
    """A file that grows and changes while it is followed; `keys` holds a key for each tenant."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: dict[str, str] = {}
        self.said: dict[str, Any] = {"tenants": {}}

    def add(self, name: str, **entry: Any) -> str:
        """Adds or changes a tenant; his key."""
        key = self.keys.setdefault(name, new_key())
        self.said["tenants"][name] = {"keys": [hash_line(key)], **entry}
        self.write()
        return key

    def remove(self, name: str) -> None:
        """He is a tenant no more."""
        del self.said["tenants"][name]
        self.write()

    def believe(self, jwks: str, tenant_claim: str = "team") -> None:
        """Tokens of the issuer count."""
        rules = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks, "tenant_claim": tenant_claim}
        self.said["tokens"] = rules
        self.write()

    def write(self) -> None:
        """All at once, as a person's editor does."""
        partial = self.path.with_suffix(".partial")
        partial.write_text(yaml.safe_dump(self.said))
        partial.replace(self.path)


class Issuer:
    """Signs tokens; its public keys lie in a file."""

    def __init__(self, jwks: Path) -> None:
        self._jwks = jwks
        self._number = 0
        self.turn_over()

    def turn_over(self) -> None:
        """Signs with another key from now on, the only one that is published."""
        self._number += 1
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(RSAAlgorithm.to_jwk(self._key.public_key()))
        self._jwks.write_text(json.dumps({"keys": [{**public, "kid": str(self._number), "alg": "RS256"}]}))

    def token(self, seconds: float = 600, **claims: Any) -> str:
        """A token for so long; claims may be replaced."""
        said = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + seconds, **claims}
        return jwt.encode(said, self._key, algorithm="RS256", headers={"kid": str(self._number)})
