"""Requests of jobs on their way through the gateways, like anybody's, but after everybody's."""

import asyncio
import json
import logging
from itertools import count
from typing import Any

import httpx2

from services.common.tenants.access import ON_BEHALF
from services.common.tls import Tls
from services.jobs.lines import Request, Result

log = logging.getLogger(__name__)

# Tells a gateway that this request may wait: see services/gateway/background.py.
HEADERS = {"content-type": "application/json", "headrace-priority": "background"}
CONNECT_SECONDS = 3.0
# A gateway answers by its own deadline, however late; this is for one that has fallen silent.
SILENT_SECONDS = 1800.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
# Said by gateways and balancers where it is not the request's fault: full, starting, stopping, late, nobody there.
TRY_AGAIN = {408, 425, 429, 499, 502, 503, 504}


class Gateways:
    """Asks one gateway after the other.

    Args:
        addresses: host:port of their HTTP.
        connections: most requests under way.
        api_key: of a tenant that may act for others, where gateways ask for keys.
        tls: how gateways are called, where it says whom to believe.
    """

    def __init__(self, addresses: list[str], connections: int, api_key: str = "", tls: Tls | None = None) -> None:
        self._tls = tls if tls is not None and tls.dials else None
        scheme = "https" if self._tls else "http"
        self._bases = [f"{scheme}://{address}" for address in addresses]
        # Whose certificate is expected, where it is not that of the host that is dialled.
        self._extensions = {"sni_hostname": tls.name} if self._tls and tls and tls.name else {}
        self._next = count()
        # Requests wait here, in line, rather than in the client's pool.
        self._room = asyncio.Semaphore(connections)
        self._headers = HEADERS | ({"x-api-key": api_key} if api_key else {})
        self._limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._clients: dict[int, httpx2.AsyncClient] = {}

    async def ask(self, request: Request, tenant: str) -> Result:
        """The answer, whenever it comes: what is not the request's own fault is tried again until then.

        Args:
            tenant: in whose name; empty: in that of the tenant whose key this is.
        """
        headers = {ON_BEHALF: tenant} if tenant else {}
        body, pause = json.dumps(request.body).encode(), FIRST_PAUSE
        while True:
            async with self._room:
                answered, after = await self._try(request.url, body, headers)
            if answered is not None:
                return answered
            await asyncio.sleep(max(after, pause))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _try(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[Result | None, float]:
        """An answer to keep, or None and the seconds after which to come again."""
        base = self._bases[next(self._next) % len(self._bases)]
        try:
            response = await self._client().post(base + url, content=body, headers=headers, extensions=self._extensions)
        except httpx2.HTTPError as error:
            log.debug("%s does not answer: %r", base, error)
            return None, 0.0
        if response.status_code in TRY_AGAIN:
            after = response.headers.get("retry-after", "")
            return None, float(after) if after.isdigit() else 0.0
        return Result(response.status_code, _content(response)), 0.0

    async def close(self) -> None:
        """Ends the connections."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self) -> httpx2.AsyncClient:
        """With the certificates of now. Those before are closed last, since requests may be under way on them."""
        revision = self._tls.revision if self._tls else 0
        if revision not in self._clients:
            self._clients[revision] = httpx2.AsyncClient(
                headers=self._headers,
                limits=self._limits,
                timeout=httpx2.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
                trust_env=False,
                verify=self._tls.now.client_context() if self._tls else False,
            )
        return self._clients[revision]


def _content(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return response.text
