"""What a worker's next process knows of the last one, and when a model that ended processes is tried again."""

from pathlib import Path

import pytest

from services.worker.recorder import Recorder
from services.worker.strikes import MOST_LOADS, MOST_RUNS, Strikes, refused_until, struck

BAD, GOOD = ("bad", 3), ("good", 1)


def die(recorder: Recorder, *, loading: bool) -> None:
    """As if the process ended in the middle: the slot stays as it was written."""
    slot = recorder.loading(BAD) if loading else recorder.running(BAD)
    recorder._slots[slot.offset : slot.offset + len(slot.line)] = slot.line
    recorder._slots.close()


def test_the_next_process_knows_what_ended_the_last(tmp_path: Path) -> None:
    for number in range(1, 4):
        die(Recorder(tmp_path, "w1"), loading=True)
        found = Recorder(tmp_path, "w1").strikes(BAD)
        assert (found.loads, found.runs) == (number, 0)
    assert Recorder(tmp_path, "w1").strikes(BAD).loads == 3, "a process that ended well adds nothing"
    assert Recorder(tmp_path, "w2").strikes(BAD).loads == 0, "each worker keeps its own"


def test_a_success_wipes_the_slate(tmp_path: Path) -> None:
    die(Recorder(tmp_path, "w1"), loading=False)
    die(Recorder(tmp_path, "w1"), loading=True)
    recorder = Recorder(tmp_path, "w1")
    with recorder.during(recorder.loading(BAD)):
        pass
    assert (recorder.strikes(BAD).loads, recorder.strikes(BAD).runs) == (0, 1), "a load that went well proves no run"
    with recorder.during(recorder.running(GOOD)):
        pass
    assert recorder.strikes(BAD).runs == 1
    with recorder.during(recorder.running(BAD)):
        pass
    assert Recorder(tmp_path, "w1").strikes(BAD) == Strikes()


def test_an_error_is_not_a_death(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "w1")
    with pytest.raises(ValueError, match="bad input"), recorder.during(recorder.running(BAD)):
        raise ValueError("bad input")
    assert Recorder(tmp_path, "w1").strikes(BAD) == Strikes()


def test_a_damaged_ledger_is_begun_anew(tmp_path: Path) -> None:
    die(Recorder(tmp_path, "w1"), loading=True)
    Recorder(tmp_path, "w1")
    (tmp_path / "w1.strikes.json").write_text('[{"name": 7}')
    (tmp_path / "w1.doing").write_bytes(b"short")
    assert Recorder(tmp_path, "w1").strikes(BAD) == Strikes()


def test_it_is_refused_for_ever_longer() -> None:
    strikes = Strikes()
    waits = []
    for death in range(1, 12):
        strikes = struck(strikes, loading=True, now=1000.0)
        waits.append(refused_until(strikes) - 1000 if refused_until(strikes) else 0)
        assert bool(waits[-1]) == (death >= MOST_LOADS)
    assert waits == sorted(waits)
    assert waits[MOST_LOADS - 1] == 60
    assert waits[-1] == 3600
    assert refused_until(Strikes(runs=MOST_RUNS - 1, at=1000.0)) == 0
    assert refused_until(Strikes(runs=MOST_RUNS, at=1000.0)) == 1060
