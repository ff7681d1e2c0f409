"""aiormq's errors as ours."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiormq.exceptions import AMQPError, ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError

from services.common.errors import FailedPrecondition, HeadraceError, NotFound, Unavailable


@contextmanager
def translated(what: str) -> Iterator[None]:
    """aiormq's errors as ours. It also cancels, of all things, whoever waits on what it closes."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Unavailable(f"{what}: the connection to RabbitMQ broke") from None
    except (DeliveryError, HeadraceError):
        raise
    except ChannelNotFoundEntity as error:
        raise NotFound(f"{what}: {error}; declare the queue first") from error
    except ChannelPreconditionFailed as error:
        raise FailedPrecondition(
            f"{what}: {error}; a queue exists with other limits: drain and delete it, or keep the limits it has"
        ) from error
    except (AMQPError, OSError, RuntimeError) as error:
        raise Unavailable(f"{what}: {error!r}") from error
    except Exception as error:
        if type(error) is Exception:  # aiormq's own word for "closed, and I do not know why"
            raise Unavailable(f"{what}: the connection to RabbitMQ broke") from error
        raise
