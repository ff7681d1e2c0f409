"""When a model that ended its worker's process is given another chance. Pure; times are Unix seconds."""

from dataclasses import dataclass

# A load has nothing to do with requests: twice is no accident. Runs may be the fault of one poisoned request, which
# ends after its own limit of attempts (three claims more than the first run): only more than that is the model's.
MOST_LOADS = 2
MOST_RUNS = 5
FIRST_REFUSAL_SECONDS = 60.0
MOST_REFUSAL_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Strikes:
    """Processes that ended while they loaded or ran a model, since that last went well.

    Attributes:
        at: when it was last seen.
    """

    loads: int = 0
    runs: int = 0
    at: float = 0.0


NO_STRIKES = Strikes()


def struck(strikes: Strikes, *, loading: bool, now: float) -> Strikes:
    """One more."""
    return Strikes(strikes.loads + loading, strikes.runs + (not loading), now)


def refused_until(strikes: Strikes) -> float:
    """When it may be loaded again: 0 at once, else ever later with each further death."""
    over = max(strikes.loads - MOST_LOADS, strikes.runs - MOST_RUNS)
    if over < 0:
        return 0.0
    return strikes.at + min(FIRST_REFUSAL_SECONDS * 2.0**over, MOST_REFUSAL_SECONDS)
