"""RolloutService: changes that people ask for, and the one that gateways' reports lead to."""

import logging
import time
from typing import Any

from headrace.v1 import rollout_pb2 as pb
from headrace.v1.rollout_pb2_grpc import RolloutServiceServicer
from services.common.errors import Conflict, HeadraceError
from services.common.outcomes import Outcomes
from services.registry.rollout_chain import RolloutChain
from services.registry.rollouts import broken_bound
from services.registry.watching import Watchers

log = logging.getLogger(__name__)

# A gateway that reported no more recently is gone, or has nothing to say about the revision.
REPORT_SECONDS = 5.0


class RolloutServer(RolloutServiceServicer):
    """Implements RolloutService. Reports are soft state: each gateway's last one counts, for a few seconds."""

    def __init__(self, chain: RolloutChain, watchers: Watchers) -> None:
        self._chain = chain
        self._watchers = watchers
        # Model → gateway → (when, what it said).
        self._reports: dict[str, dict[str, tuple[float, pb.ModelOutcomes]]] = {}

    async def Promote(self, request: pb.PromoteRequest, context: Any) -> pb.PromoteResponse:
        """Writes the next revision."""
        rollout = await self._chain.promote(request)
        await self._watchers.tell()
        return pb.PromoteResponse(rollout=rollout)

    async def Rollback(self, request: pb.RollbackRequest, context: Any) -> pb.RollbackResponse:
        """Writes the next revision."""
        reason = request.reason or "rolled back by hand"
        rollout = await self._chain.roll_back(request.name, reason, request.expected_revision)
        await self._watchers.tell()
        return pb.RollbackResponse(rollout=rollout)

    async def ReportOutcomes(self, request: pb.ReportOutcomesRequest, context: Any) -> pb.ReportOutcomesResponse:
        """Notes what a gateway saw and judges by what all of them did."""
        now = time.monotonic()
        for outcomes in request.models:
            self._reports.setdefault(outcomes.name, {})[request.gateway_id] = (now, outcomes)
            await self._judge(outcomes.name, now)
        return pb.ReportOutcomesResponse()

    async def _judge(self, name: str, now: float) -> None:
        model = self._watchers.known(name)
        if model is None or not model.HasField("rollout"):
            self._reports.pop(name, None)
            return
        rollout, now_ms = model.rollout, time.time_ns() // 1_000_000
        fresh = {gateway: said for gateway, said in self._reports[name].items() if said[0] > now - REPORT_SECONDS}
        self._reports[name] = fresh
        reason = broken_bound(rollout, _together(fresh, rollout.revision), now_ms)
        if not reason:
            return
        try:
            await self._chain.roll_back(name, reason, rollout.revision)
        except Conflict as error:  # another registry, or a person, was first; or a dead one holds the turn
            log.info("'%s' was not rolled back here: %s", name, error)
            return
        except HeadraceError as error:
            log.warning("'%s' must be rolled back and cannot be now: %s", name, error)
            return
        log.warning("'%s': %s", name, reason)
        await self._watchers.tell()


def _together(reports: dict[str, tuple[float, pb.ModelOutcomes]], revision: int) -> dict[int, Outcomes]:
    """What all gateways saw of a revision, by version."""
    total: dict[int, Outcomes] = {}
    for _, said in reports.values():
        if said.revision == revision:
            for version in said.versions:
                seen = Outcomes(version.failed, version.answered)
                total[version.version] = total.get(version.version, Outcomes()).plus(seen)
    return total
