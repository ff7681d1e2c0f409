"""The embedded broker's rules: tables of what each does, and a law over random histories: no message is lost or held
twice."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.broker.embedded.core import BrokerCore, CoreConsumer
from services.common.broker.port import Depth, Message, QueueSpec
from services.common.errors import NotFound, QueueFull


class Hands:
    """A consumer's hands: delivery tag → (body, redelivered)."""

    def __init__(self, core: BrokerCore, queue: str = "q", prefetch: int = 10, priority: int = 0) -> None:
        self.held: dict[int, tuple[bytes, bool]] = {}
        self.consumer = CoreConsumer(queue, prefetch, priority, self._take)
        core.consume(self.consumer, 0.0)

    def _take(self, tag: int, message: Message, redelivered: bool) -> None:
        assert tag not in self.held
        self.held[tag] = (message.body, redelivered)

    def bodies(self) -> list[bytes]:
        """What is held, in order of delivery."""
        return [body for body, _ in self.held.values()]


def core_with(**limits: object) -> BrokerCore:
    """A core with the queues `q`, so limited, and `grave`."""
    core = BrokerCore()
    core.declare(QueueSpec("grave"))
    core.declare(QueueSpec("q", **limits))  # type: ignore[arg-type]
    return core


def publish(core: BrokerCore, *bodies: bytes, count: int = 1, ttl: float | None = None, now: float = 0.0) -> None:
    """To `q`."""
    for body in bodies:
        core.publish("q", Message(body, count=count, ttl=ttl), now)


@pytest.mark.parametrize(
    ("prefetch", "counts", "held"),
    [
        (1, [1, 1], 1),
        (2, [1, 1, 1], 2),
        (4, [3, 3, 3], 2),  # room for one request is room for one message
        (1, [50, 1], 1),  # however many requests it carries
        (8, [8, 1], 1),
    ],
)
def test_prefetch_counts_requests(prefetch: int, counts: list[int], held: int) -> None:
    core = core_with()
    hands = Hands(core, prefetch=prefetch)
    for count in counts:
        publish(core, b"x", count=count)
    assert len(hands.held) == held
    assert core.depth("q", 0.0).ready == sum(counts[held:])


@pytest.mark.parametrize(("limit", "counts", "refused_at"), [(3, [1, 1, 1, 1], 3), (10, [4, 4, 4], 2), (10, [11], 0)])
def test_length_counts_requests(limit: int, counts: list[int], refused_at: int) -> None:
    core = core_with(max_length=limit)
    for count in counts[:refused_at]:
        publish(core, b"x", count=count)
    with pytest.raises(QueueFull, match="'q'"):
        publish(core, b"x", count=counts[refused_at])
    assert core.depth("q", 0.0).ready == sum(counts[:refused_at])


def test_priority_first_then_equals_in_turn() -> None:
    core = core_with()
    low, high = Hands(core, priority=0), Hands(core, prefetch=1, priority=5)
    twin = Hands(core, priority=0)
    publish(core, b"1", b"2", b"3", b"4", b"5")
    assert high.bodies() == [b"1"]
    assert (low.bodies(), twin.bodies()) == ([b"2", b"4"], [b"3", b"5"])


def test_a_lost_consumers_messages_return_to_the_head_in_order() -> None:
    core = core_with()
    hands = Hands(core, prefetch=2)
    publish(core, b"1", b"2", b"3")
    core.lose(hands.consumer, 0.0)
    assert core.depth("q", 0.0) == Depth(3, 0)
    other = Hands(core)
    assert list(other.held.values()) == [(b"1", True), (b"2", True), (b"3", False)]


@pytest.mark.parametrize("verb", ["lose", "requeue"])
def test_over_the_delivery_limit_is_the_grave(verb: str) -> None:
    core = core_with(delivery_limit=2, dead_letter="grave")
    grave = Hands(core, "grave")
    publish(core, b"poison")
    for _ in range(3):
        assert grave.bodies() == []
        hands = Hands(core, prefetch=1)
        assert hands.bodies() == [b"poison"]
        core.cancel(hands.consumer)
        if verb == "requeue":
            core.requeue(next(iter(hands.held)), 0.0)
        core.lose(hands.consumer, 0.0)
    assert grave.bodies() == [b"poison"]
    assert core.depth("q", 0.0).ready == 0


@pytest.mark.parametrize(("dead_letter", "buried"), [("grave", [b"bad"]), (None, []), ("never declared", [])])
def test_rejected_goes_to_the_grave_if_there_is_one(dead_letter: str | None, buried: list[bytes]) -> None:
    core = core_with(dead_letter=dead_letter)
    hands, grave = Hands(core), Hands(core, "grave")
    publish(core, b"bad")
    core.reject(next(iter(hands.held)), 0.0)
    assert grave.bodies() == buried


def test_expired_messages_leave_at_the_head() -> None:
    core = core_with(dead_letter="grave", max_length=2)
    publish(core, b"late", ttl=1.0)
    publish(core, b"later", ttl=2.0)
    assert core.depth("q", 0.9).ready == 2
    publish(core, b"room again", now=1.0)
    assert core.depth("grave", 1.0).ready == 1
    assert core.depth("q", 3.0).ready == 1
    assert Hands(core).bodies() == [b"room again"]


def test_depth_tells_what_is_in_hands_and_leaves_out_what_expired_behind_others() -> None:
    core = core_with()
    publish(core, b"1", b"2", ttl=10.0)
    publish(core, b"3", ttl=1.0)
    assert core.depth("q", 2.0).ready == 2
    hands = Hands(core, prefetch=2)
    held = core.depth("q", 0.0)
    assert (held.ready, held.unacknowledged) == (1, 2)
    core.lose(hands.consumer, 0.0)
    returned = core.depth("q", 0.0)
    assert (returned.ready, returned.unacknowledged) == (3, 0)


def test_unknown_queues_are_not_found_and_settled_tags_are_nothing() -> None:
    core = core_with()
    hands = Hands(core)
    publish(core, b"1")
    tag = next(iter(hands.held))
    for _ in range(2):
        core.ack(tag, 0.0)
    core.requeue(tag, 0.0)
    assert core.depth("q", 0.0).ready == 0
    with pytest.raises(NotFound, match="nowhere"):
        core.publish("nowhere", Message(b"x"), 0.0)
    with pytest.raises(NotFound, match="nowhere"):
        core.depth("nowhere", 0.0)


ACTIONS = ("publish", "publish", "publish", "ack", "requeue", "reject", "join", "lose", "cancel", "tick")


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 7)), max_size=60), st.booleans())
def test_no_message_is_lost_or_held_twice(history: list[tuple[str, int]], limited: bool) -> None:
    core = core_with(delivery_limit=2 if limited else None, dead_letter="grave")
    everyone: list[Hands] = []
    published, acked, now = 0, [], 0.0
    for action, number in history:
        owner = everyone[number % len(everyone)] if everyone else None
        tag = next(iter(owner.held), None) if owner else None
        if action == "publish":
            core.publish("q", Message(b"%d" % published, ttl=float(number) if number > 4 else None), now)
            published += 1
        elif action == "tick":
            now += number
        elif action == "join":
            everyone.append(Hands(core, prefetch=1 + number % 3, priority=number % 2))
        elif owner and action == "lose":
            everyone.remove(owner)
            core.lose(owner.consumer, now)
        elif owner and action == "cancel":
            core.cancel(owner.consumer)
        elif owner and tag is not None:
            body, _ = owner.held.pop(tag)
            if action == "ack":
                acked.append(body)
            getattr(core, action)(tag, now)
    for owner in everyone:
        core.lose(owner.consumer, now)
    left = Counter(Hands(core, prefetch=1000).bodies() + Hands(core, "grave", 1000).bodies() + acked)
    assert left == Counter(b"%d" % number for number in range(published))


def test_a_delivery_has_a_holder_until_it_is_settled() -> None:
    core = core_with()
    hands = Hands(core)
    publish(core, b"a")
    (tag,) = hands.held
    assert core.holder(tag) is hands.consumer
    core.ack(tag, 0.0)
    assert core.holder(tag) is None
