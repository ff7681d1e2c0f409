"""HTTP bodies over the limit are refused: by what their length says, else once so much has come."""

from collections.abc import Awaitable, Callable

from fastapi.responses import JSONResponse

from services.common.errors import HeadraceError, TooLarge
from services.gateway.application import AsgiApp, Event, Scope

# Files are spooled to disk as they come. Envoy's buffer takes twice the limit for one message, and so do we.
_FILES, _TIMES = "/v1/files", 2


class BodyLimit:
    """ASGI middleware.

    Args:
        most: bytes of a body; twice as many for an uploaded file.
        refuse: the answer to a request that is over it, by its path and what is wrong.
    """

    def __init__(self, app: AsgiApp, most: int, refuse: Callable[[str, HeadraceError], JSONResponse]) -> None:
        self._app = app
        self._most = most
        self._refuse = refuse

    async def __call__(
        self, scope: Scope, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
    ) -> None:
        """ASGI's entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most * (_TIMES if scope["path"] == _FILES else 1)
        said = dict(scope["headers"]).get(b"content-length", b"0")
        came, answering = (int(said) if said.isdigit() else 0), False
        error = TooLarge(f"the body is over the limit of {most} bytes; send less at once")

        async def counted() -> Event:
            nonlocal came
            event = await receive()
            came += len(event.get("body", b""))
            if came > most:
                raise error
            return event

        async def unless_over(event: Event) -> None:
            nonlocal answering
            if came > most and not answering:
                return  # whoever read the body explains the broken reading in words of its own
            answering = True
            await send(event)

        if came <= most:
            came = 0
            try:
                await self._app(scope, counted, unless_over)
            except TooLarge:
                if came <= most:
                    raise
        if came > most and not answering:
            await self._refuse(scope["path"], error)(scope, receive, send)
