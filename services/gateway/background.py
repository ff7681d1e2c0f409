"""Requests that let everybody else go first: they wait in a queue of their own, for the workers' pauses."""

from services.common.errors import InvalidArgument
from services.gateway.calls import Call
from services.gateway.routes import Route

# The metadata, or HTTP header, that asks for it.
PRIORITY = "headrace-priority"


def placed(call: Call, route: Route) -> Route:
    """The route as the call's priority wants it. Raises InvalidArgument."""
    match call.metadata.get(PRIORITY):
        case None | "interactive":
            return route
        case "background":
            return route.behind or route
        case other:
            raise InvalidArgument(f"{PRIORITY} is {other!r}; expected 'interactive' or 'background'")
