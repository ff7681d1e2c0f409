"""From a call's credentials to its tenant, by a tenants file that is read again whenever it changes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.keys import PREFIX
from services.common.errors import HeadraceError, InvalidArgument, PermissionDenied, Unauthenticated
from services.common.tenants.directory import Directory, TokenRules, read_directory
from services.common.tenants.tenant import Tenant
from services.common.tenants.tokens import TokenVerifier

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
# The issuer's keys are read so often, and when a token is signed with an unknown one: then so soon at the earliest.
REFRESH_SECONDS = 300.0
PAUSE_SECONDS = 10.0

# Metadata, or an HTTP header: the tenant in whose name the call is made.
ON_BEHALF = "headrace-on-behalf"

Credentials = Mapping[str, str | bytes]


class Access:
    """Knows the tenants."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._directory = Directory()
        self._verifier: TokenVerifier | None = None
        self._seen: object = None

    def tenant_of(self, metadata: Credentials) -> Tenant:
        """Whose call this is: by `authorization: Bearer KEY_OR_TOKEN`, or `x-api-key: KEY`.

        With `headrace-on-behalf: NAME` it is that tenant's, if whoever has the key may act for others.

        Args:
            metadata: keys in lower case.

        Raises:
            Unauthenticated: no credentials, or none that are known.
            PermissionDenied: a call on behalf of somebody, by one who may not, or for one who is none.
        """
        caller = self._owner(metadata)
        name = metadata.get(ON_BEHALF)
        if name is None:
            return caller
        tenant = self._directory.tenants.get(str(name))
        if not caller.on_behalf or tenant is None:
            raise PermissionDenied(
                f"tenant '{caller.name}' may not call on behalf of '{str(name)[:64]}'; it takes `on_behalf: true`, and"
                " both must be in the tenants file"
            )
        return tenant

    def _owner(self, metadata: Credentials) -> Tenant:
        """Whose key or token it is."""
        said = _credentials(metadata)
        if said.startswith(PREFIX):
            return self._directory.owner(said)
        if self._verifier is None or not said:
            raise Unauthenticated("no API key came with the call; send it as `authorization: Bearer KEY`")
        name = self._verifier.tenant_name(said)
        tenant = self._directory.tenants.get(name)
        if tenant is None:
            raise Unauthenticated(f"the token names tenant '{name[:64]}', which the tenants file does not have")
        return tenant

    def look(self) -> bool:
        """Reads the file if it is another than before; whether it was. Raises InvalidArgument: the old one stays."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return False
            self._seen = seen
            self._directory = read_directory(self._path.read_text())
        except (OSError, UnicodeError) as error:
            raise InvalidArgument(f"tenants file {self._path}: {error}") from error
        except InvalidArgument as error:
            raise InvalidArgument(f"tenants file {self._path}: {error}") from error
        self._take_rules(self._directory.tokens)
        return True

    def _take_rules(self, rules: TokenRules | None) -> None:
        if rules is None:
            self._verifier = None
        elif self._verifier is None or self._verifier.rules != rules:
            self._verifier = TokenVerifier(rules)

    async def follow(self) -> None:
        """Looks at the file for ever, and at the issuer's keys: now and then, when they are missed, by other rules.

        A file that is wrong is told of once and changes nothing.
        """
        loop = asyncio.get_running_loop()
        verifier, read_at = self._verifier, loop.time()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self.look():
                    log.info("tenants file %s read again: %d tenants", self._path, len(self._directory.tenants))
            except InvalidArgument as error:
                log.warning("%s; the tenants stay as they were", error)
            age, missed = loop.time() - read_at, self._verifier is not None and self._verifier.missed
            if verifier is not self._verifier or age > REFRESH_SECONDS or (missed and age > PAUSE_SECONDS):
                verifier, read_at = self._verifier, loop.time()
                await self.refresh()

    async def refresh(self) -> None:
        """Reads the issuer's keys, if tokens are believed."""
        if self._verifier is not None:
            try:
                await self._verifier.refresh(self._path.parent)
            except HeadraceError as error:
                log.warning("%s", error)


def _credentials(metadata: Credentials) -> str:
    """The bare key or token; empty if there is none."""
    said = str(metadata.get("authorization", ""))
    scheme, _, value = said.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return str(metadata.get("x-api-key", ""))


@asynccontextmanager
async def open_access(path: str) -> AsyncIterator[Access | None]:
    """Access by a tenants file, followed as it changes; None where no file is named: then everybody may do everything.

    Raises:
        InvalidArgument: the file cannot be read, or says what it may not; nothing is served on a guess.
    """
    if not path:
        yield None
        return
    access = Access(Path(path))
    access.look()
    await access.refresh()
    following = asyncio.create_task(access.follow(), name="tenants file")
    try:
        yield access
    finally:
        following.cancel()
