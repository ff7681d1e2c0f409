"""One delivery's debt: it is acknowledged once every request in it is settled."""

from collections.abc import Callable

from services.common.broker.port import Delivery


class Ticket:
    """Counts the requests of one envelope that are still owed.

    A request is settled when the gateway has confirmed its reply, or when nobody waits for it. Only then may the broker
    forget the message: a worker that dies any earlier has it redelivered.
    """

    def __init__(self, delivery: Delivery, owed: int, on_done: Callable[["Ticket"], None]) -> None:
        self._delivery = delivery
        self._owed = owed
        self._on_done = on_done
        self.started = False
        self.closed = False

    def settle(self) -> None:
        """One request less."""
        self._owed -= 1
        if self._owed <= 0 and not self.closed:
            self.closed = True
            self._delivery.ack()
            self._on_done(self)

    def hand_back(self) -> None:
        """Gives the whole message to another worker."""
        if not self.closed:
            self.closed = True
            self._delivery.requeue()
            self._on_done(self)
