"""Who leaves when workers are too many."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.autoscaler.orchestrators.victims import victims
from services.autoscaler.signals.views import WorkerView
from services.autoscaler.signals.workers import Phase

READY = WorkerView("", Phase.READY, models=frozenset({"a"}), age=100.0)


def named(**workers: WorkerView) -> list[WorkerView]:
    return [replace(worker, id=name) for name, worker in workers.items()]


def test_the_stuck_leave_first_then_those_on_their_way() -> None:
    workers = named(
        ready=READY,
        old_start=replace(READY, phase=Phase.STARTING, age=9.0),
        new_start=replace(READY, phase=Phase.STARTING, age=1.0),
        stuck=replace(READY, phase=Phase.STUCK, running=4),
        gone=replace(READY, phase=Phase.LEAVING),
    )
    assert victims(workers, 4) == ["stuck", "new_start", "old_start", "ready"]
    assert victims(workers, 9) == ["stuck", "new_start", "old_start", "ready"]


def test_a_model_that_only_one_worker_holds_keeps_it() -> None:
    workers = named(
        only=replace(READY, models=frozenset({"a", "rare"})),
        busy=replace(READY, running=3),
        idle=replace(READY, running=0),
    )
    assert victims(workers, 2) == ["idle", "busy"]


def test_the_last_holder_of_a_model_is_the_last_one_chosen_among_equals() -> None:
    """After the first of two holders is chosen, the second is the only one."""
    both = frozenset({"a", "b"})
    workers = named(
        first=replace(READY, models=both, age=1.0),
        second=replace(READY, models=both, age=2.0),
        third=replace(READY, models=frozenset({"a"}), age=3.0, running=1),
    )
    assert victims(workers, 2) == ["first", "third"]


@given(
    st.lists(
        st.builds(
            WorkerView,
            id=st.text("abcdef", min_size=1, max_size=3),
            phase=st.sampled_from(Phase),
            running=st.integers(0, 3),
            models=st.frozensets(st.sampled_from("xyz")),
            age=st.floats(0, 100),
        ),
        max_size=8,
        unique_by=lambda worker: worker.id,
    ),
    st.integers(0, 10),
)
def test_as_many_as_asked_for_nobody_twice_and_nobody_who_leaves_already(workers: list[WorkerView], count: int) -> None:
    staying = {worker.id for worker in workers if worker.phase is not Phase.LEAVING}
    chosen = victims(workers, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(staying))
    assert set(chosen) <= staying
