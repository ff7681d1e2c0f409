"""How many workers the signals call for, before limits, windows and rates. Pure."""

from services.autoscaler.policy.config import Mode, PolicyConfig
from services.autoscaler.policy.observation import Observation
from services.autoscaler.policy.windows import Averages


def need(observation: Observation, averages: Averages, config: PolicyConfig) -> float:
    """Workers called for, not rounded, going by the averages of one window."""
    match config.mode:
        case Mode.QUEUE_LENGTH:
            return observation.backlog / config.target
        case Mode.MESSAGE_RATE:
            return averages.rate / config.target
        case Mode.ONGOING_REQUESTS:
            return averages.backlog / config.target
        case Mode.DRAIN_TIME:
            callers = averages.load / config.utilisation
            callers += _overdue(observation, averages, config) / config.drain_seconds
            return callers + jobs(observation, config) / config.jobs_seconds


def work(observation: Observation, config: PolicyConfig) -> float:
    """Seconds of one worker's time that the backlog asks for."""
    return sum(demand.backlog * (demand.service_seconds or config.service_seconds) for demand in observation.demands)


def jobs(observation: Observation, config: PolicyConfig) -> float:
    """Seconds of one worker's time that jobs ask for beside what gateways have of them."""
    return sum(demand.jobs * (demand.service_seconds or config.service_seconds) for demand in observation.demands)


def _overdue(observation: Observation, averages: Averages, config: PolicyConfig) -> float:
    """Seconds of work that will wait when a worker that is started now is ready.

    Until then the present workers do a second of work a second each, and those that are starting now do what their
    lead over a new one leaves them time for.
    """
    lead = config.start_seconds if observation.start_seconds is None else observation.start_seconds
    supply = observation.ready * lead + sum(min(since, lead) for since in observation.starting)
    return max(0.0, work(observation, config) + averages.load * lead - supply)
