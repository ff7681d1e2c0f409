"""JSON web tokens: an issuer's public keys, and what its tokens say. The adapter of PyJWT."""

import asyncio
import time
import urllib.request
from pathlib import Path
from typing import Any

import jwt

from services.common.errors import InvalidArgument, Unauthenticated, Unavailable
from services.common.tenants.directory import TokenRules

FETCH_SECONDS = 10
MOST_BYTES = 1024 * 1024
# Issuers' and our clocks may differ by so much.
LEEWAY_SECONDS = 30
# Verifying a signature costs as much as the rest of a call: a token that was verified is remembered until it expires.
MOST_REMEMBERED = 4096


class TokenVerifier:
    """Believes the tokens of one issuer.

    Attributes:
        missed: a token came whose key is not known, or no key is: the issuer's keys should be read again.
    """

    def __init__(self, rules: TokenRules) -> None:
        self.rules = rules
        self.missed = False
        self._keys: dict[str, jwt.PyJWK] | None = None
        self._verified: dict[str, tuple[str, float]] = {}

    async def refresh(self, folder: Path) -> None:
        """Reads the issuer's keys.

        Args:
            folder: where the path of a file begins.

        Raises:
            Unavailable: they cannot be had now.
            InvalidArgument: what is there is no key set.
        """
        source, self.missed = self.rules.jwks, False
        try:
            text = await asyncio.to_thread(_read, source, folder)
        except (OSError, ValueError) as error:
            raise Unavailable(f"cannot read the token issuer's keys from {source}: {error}") from error
        try:
            keys = jwt.PyJWKSet.from_json(text).keys
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidArgument(f"{source} holds no JSON web key set: {error}") from error
        # A symmetric key in a public set would let everybody sign.
        self._keys = {key.key_id or "": key for key in keys if key.key_type != "oct"}
        self._verified.clear()

    def tenant_name(self, token: str) -> str:
        """The tenant that a token names. Raises Unauthenticated, or Unavailable without the issuer's keys."""
        name, expires = self._verified.get(token, ("", 0.0))
        if expires > time.time():
            return name
        claims = self._claims(token)
        name = str(claims.get(self.rules.tenant_claim, ""))
        if not name:
            raise Unauthenticated(f"the token has no claim '{self.rules.tenant_claim}', which names the tenant")
        if len(self._verified) >= MOST_REMEMBERED:
            self._verified.clear()
        self._verified[token] = (name, float(claims["exp"]))
        return name

    def _claims(self, token: str) -> dict[str, Any]:
        if self._keys is None:
            self.missed = True
            raise Unavailable("the token issuer's keys cannot be read now; try again, or look at the log")
        try:
            key = self._keys.get(jwt.get_unverified_header(token).get("kid", ""))
            if key is None:
                self.missed = True
                raise Unauthenticated(
                    "the token is signed with a key that its issuer does not publish, or not yet; get a new token"
                )
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self.rules.audience,
                issuer=self.rules.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp"]},
            )
        except (jwt.PyJWTError, RecursionError) as error:  # it reads JSON of anybody's before a signature
            raise Unauthenticated(f"the token is not valid here: {error}") from error
        return claims


def _read(source: str, folder: Path) -> str:
    if not source.startswith(("http://", "https://")):
        return (folder / source).read_text()
    with urllib.request.urlopen(source, timeout=FETCH_SECONDS) as answer:
        body: bytes = answer.read(MOST_BYTES)
    return body.decode()
