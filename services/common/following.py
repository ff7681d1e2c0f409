"""A channel that dials anew when its credentials have changed."""

from collections.abc import Callable
from typing import Any

import grpc
from grpc import aio


class FollowingChannel(aio.Channel):
    """Implements aio.Channel over one channel after another; grpc itself keeps a channel's credentials for ever.

    Calls under way end on the connection that they began on, later ones begin on the latest.

    Args:
        dial: makes a channel with the credentials of now.
        revision: a number that changes when they do.
    """

    def __init__(self, dial: Callable[[], aio.Channel], revision: Callable[[], int]) -> None:
        self._dial = dial
        self._revision = revision
        self._dialled = revision()
        self._channel = dial()

    def _now(self) -> aio.Channel:
        if (revision := self._revision()) != self._dialled:
            self._dialled = revision
            # The old one is let go, not closed: closing would end its calls.
            self._channel = self._dial()
        return self._channel

    def unary_unary(self, *method: Any, **named: Any) -> Any:
        """As all four: a callable, for stubs."""
        return self._late("unary_unary", method, named)

    def unary_stream(self, *method: Any, **named: Any) -> Any:
        """See unary_unary."""
        return self._late("unary_stream", method, named)

    def stream_unary(self, *method: Any, **named: Any) -> Any:
        """See unary_unary."""
        return self._late("stream_unary", method, named)

    def stream_stream(self, *method: Any, **named: Any) -> Any:
        """See unary_unary."""
        return self._late("stream_stream", method, named)

    def _late(self, kind: str, method: tuple[Any, ...], named: dict[str, Any]) -> Callable[..., Any]:
        """The connection is chosen when the call begins, not when the stub is made."""

        def call(*request: Any, **how: Any) -> Any:
            return getattr(self._now(), kind)(*method, **named)(*request, **how)

        return call

    async def close(self, grace: float | None = None) -> None:
        """Ends the latest connection and its calls."""
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Of the latest connection."""
        return self._now().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Of the latest connection."""
        await self._now().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """The latest connection stands."""
        await self._now().channel_ready()

    async def __aenter__(self) -> "FollowingChannel":
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()
