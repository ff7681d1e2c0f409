"""From fleet reports, depths and the orchestrator's list to what the policy sees."""

from math import inf

import pytest

from headrace.v1.fleet_pb2 import (
    LOAD_STATE_LOADING,
    LOAD_STATE_READY,
    Backlog,
    Gateway,
    HeldModel,
    QueueDemand,
    SeenGateway,
    SeenWorker,
    WatchFleetResponse,
    Worker,
)
from services.autoscaler.orchestrators.port import Instance
from services.autoscaler.signals.counts import Counts
from services.autoscaler.signals.picture import Painter
from services.autoscaler.signals.views import QueueDepth, QueueKey
from services.autoscaler.signals.workers import Phase

DIGITS = QueueKey("digits", 1)


def gateway(accepted: int = 0, in_flight: int = 0, *, name: str = "g", age_ms: int = 0) -> SeenGateway:
    queue = QueueDemand(name="digits", version=1, accepted=accepted, in_flight=in_flight, oldest_ms=in_flight * 100)
    return SeenGateway(gateway=Gateway(id=name, queues=[queue]), age_ms=age_ms)


def worker(
    name: str = "w", *, running: int = 0, batches: int = 0, loading: bool = False, draining: bool = False
) -> SeenWorker:
    held = HeldModel(
        name="digits",
        version=1,
        state=LOAD_STATE_LOADING if loading else LOAD_STATE_READY,
        running=running,
        batches=batches,
        requests=4 * batches,
        busy_us=200_000 * batches,
        max_batch_size=4,
    )
    return SeenWorker(worker=Worker(id=name, models=[held], running=running, draining=draining))


def fleet(*members: SeenWorker | SeenGateway) -> WatchFleetResponse:
    return WatchFleetResponse(
        workers=[member for member in members if isinstance(member, SeenWorker)],
        gateways=[member for member in members if isinstance(member, SeenGateway)],
    )


def instance(name: str, age: float = 100.0, *, leaving: bool = False) -> Instance:
    return Instance(name, frozenset({name}), age, leaving)


def test_what_waits_of_jobs_belongs_to_the_version_that_they_go_to() -> None:
    """Which that is, gateways tell: they always have some requests of a job."""
    seen = fleet(gateway(accepted=128, in_flight=128))
    seen.gateways[0].gateway.queues.add(name="digits", version=2, accepted=9, in_flight=1)
    any_version, second = Backlog(id="j"), Backlog(id="k")
    any_version.waiting.add(name="digits", requests=9000)
    any_version.waiting.add(name="never asked for", requests=5)
    second.waiting.add(name="digits", version=2, requests=70)
    seen.backlogs.extend([any_version, second])
    picture = Painter().paint(0, seen, 0, {}, [])
    assert {str(queue.key): queue.jobs for queue in picture.queues} == {"digits:1": 9000, "digits:2": 70}
    assert [demand.jobs for demand in picture.observation.demands] == [9000, 70]
    assert picture.observation.backlog == 129


def test_the_backlog_is_what_gateways_have_not_answered_whether_it_waits_or_runs() -> None:
    """RabbitMQ: nothing is ready, everything is in a worker's hands, and its passive declare does not tell."""
    seen = fleet(gateway(10, 3, name="a"), gateway(20, 4, name="b"), worker(running=5))
    picture = Painter().paint(0.0, seen, 0.0, {DIGITS: QueueDepth(0, None)}, None)
    (demand,) = picture.observation.demands
    assert (demand.queue, demand.backlog) == ("digits:1", 7)
    (queue,) = picture.queues
    assert (queue.running, queue.oldest_seconds) == (5, 0.4)


@pytest.mark.parametrize(
    ("depth", "running", "backlog"),
    [
        (QueueDepth(6, 2), 2, 8),  # the embedded broker tells what is unacknowledged
        (QueueDepth(6, None), 2, 8),  # for RabbitMQ it is what workers have
        (QueueDepth(0, None), 2, 2),
    ],
)
def test_what_no_gateway_waits_for_counts_too(depth: QueueDepth, running: int, backlog: int) -> None:
    """A gateway that cannot reach the registry, or work that none sent: the broker and the workers still know."""
    seen = fleet(gateway(0, 0), worker(running=running))
    picture = Painter().paint(0.0, seen, 0.0, {DIGITS: depth}, None)
    assert picture.observation.backlog == backlog


def test_the_picture_is_as_old_as_its_oldest_part_and_infinitely_old_without_one() -> None:
    depths: dict[QueueKey, QueueDepth] = {}
    painter = Painter()
    old = painter.paint(0.0, fleet(gateway(age_ms=100), gateway(name="h", age_ms=4000)), 2.0, depths, None)
    assert old.observation.age == 6.0
    assert painter.paint(1.0, fleet(worker()), 0.0, depths, None).observation.age == inf
    assert painter.paint(2.0, fleet(gateway()), 0.0, None, None).observation.age == inf
    assert painter.paint(3.0, None, inf, depths, None).observation.age == inf


def test_a_worker_with_work_in_hand_and_no_progress_is_stuck_and_does_not_count() -> None:
    painter = Painter(stuck_seconds=30.0)
    for second in range(0, 60, 5):
        seen = fleet(gateway(), worker("idle"), worker("busy", running=1, batches=second), worker("hung", running=1))
        picture = painter.paint(float(second), seen, 0.0, {}, None)
    phases = {view.id: view.phase for view in picture.workers}
    assert phases == {"idle": Phase.READY, "busy": Phase.READY, "hung": Phase.STUCK}
    assert picture.observation.ready == 2


def test_workers_on_their_way_and_leaving_ones_are_told_apart() -> None:
    seen = fleet(gateway(), worker("up"), worker("loading", loading=True), worker("told", draining=True))
    instances = [
        instance("up"),
        instance("loading", 3.0),
        instance("process", 1.0),
        instance("told"),
        instance("down", leaving=True),
    ]
    picture = Painter().paint(0.0, seen, 0.0, {}, instances)
    assert [view.phase.value for view in picture.workers] == ["ready", "starting", "starting", "leaving", "leaving"]
    assert picture.observation.starting == (3.0, 1.0)
    assert picture.observation.ready == 1


def test_a_model_that_is_pushed_does_not_make_working_workers_starting_ones() -> None:
    painter = Painter()
    painter.paint(0.0, fleet(gateway(), worker(batches=1)), 0.0, {}, None)
    busy = worker(batches=2)
    busy.worker.models.add(name="new", version=1, state=LOAD_STATE_LOADING)
    picture = painter.paint(1.0, fleet(gateway(), busy), 0.0, {}, None)
    assert [view.phase for view in picture.workers] == [Phase.READY]


def test_the_time_of_a_start_is_learned_from_those_that_were_seen_on_their_way() -> None:
    painter = Painter()
    painter.paint(0.0, fleet(gateway(), worker("old")), 0.0, {}, [instance("old"), instance("new", 0.5)])
    assert painter.starts.seconds is None
    seen = fleet(gateway(), worker("old"), worker("new"))
    picture = painter.paint(4.0, seen, 0.0, {}, [instance("old", 104.0), instance("new", 4.5)])
    assert picture.observation.start_seconds == 4.5


def test_what_a_request_costs_and_how_many_come_and_go_is_measured() -> None:
    painter = Painter()
    for second in range(30):
        seen = fleet(gateway(accepted=1_000 + 8 * second), worker(batches=500 + 2 * second))
        picture = painter.paint(float(second), seen, 0.0, {}, None)
    (queue,) = picture.queues
    # Batches of four took 0.2 s each.
    assert queue.service_seconds == pytest.approx(0.05)
    assert queue.arrival_rate == pytest.approx(8.0, rel=0.05)
    assert queue.service_rate == pytest.approx(8.0, rel=0.05)


def test_counters_survive_restarts_and_strangers() -> None:
    counts = Counts()
    assert counts.note("g", "q", 1_000_000) == 0  # since when is not known: no burst
    assert counts.note("g", "q", 1_010) == 1_010  # started anew
    assert counts.note("g", "q", 1_015) == 5
    counts.keep(set())
    assert counts.note("g", "q", 2_000) == 0
    assert counts.total("q") == 1_015
