"""AutoscalerService: what the autoscaler sees and decides, and what an operator may change."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from headrace.v1 import autoscaler_pb2 as pb
from headrace.v1.autoscaler_pb2_grpc import AutoscalerServiceServicer
from services.autoscaler import limits
from services.autoscaler.limits import Orders
from services.autoscaler.policy.config import Limits
from services.autoscaler.scaling import Decided, Scaling
from services.autoscaler.signals.views import QueueView, WorkerView
from services.autoscaler.signals.workers import Phase
from services.common.errors import FailedPrecondition
from services.common.lease import Lease
from services.common.objects.port import ObjectStore

_PHASES = {
    Phase.STARTING: pb.WORKER_PHASE_STARTING,
    Phase.READY: pb.WORKER_PHASE_READY,
    Phase.STUCK: pb.WORKER_PHASE_STUCK,
    Phase.LEAVING: pb.WORKER_PHASE_LEAVING,
}


class AutoscalerServer(AutoscalerServiceServicer):
    """Implements AutoscalerService.

    Args:
        orchestrator: its kind, for people.
    """

    def __init__(self, scaling: Scaling, lease: Lease, store: ObjectStore, orchestrator: str) -> None:
        self._scaling = scaling
        self._lease = lease
        self._store = store
        self._orchestrator = orchestrator

    async def GetScaling(self, request: pb.GetScalingRequest, context: Any) -> pb.GetScalingResponse:
        """Everything at one moment."""
        scaling, picture = self._scaling, self._scaling.picture
        return pb.GetScalingResponse(
            active=self._lease.held,
            active_address="" if self._lease.held else self._lease.holder,
            paused=scaling.orders.paused,
            min_workers=scaling.config.limits.least,
            max_workers=scaling.config.limits.most,
            orchestrator=self._orchestrator,
            mode=scaling.config.mode,
            decision=_decision(scaling.decided) if scaling.decided else None,
            queues=map(_queue, picture.queues),
            workers=map(_worker, picture.workers),
            start_seconds=picture.observation.start_seconds or 0.0,
            changes=map(_decision, scaling.changes),
        )

    async def WatchDecisions(
        self, request: pb.WatchDecisionsRequest, context: Any
    ) -> AsyncIterator[pb.WatchDecisionsResponse]:
        """The last one, then those that change the target, or all."""
        first = True
        async for decided in self._scaling.decisions():
            if first or request.all or decided.changed:
                yield pb.WatchDecisionsResponse(decision=_decision(decided))
            first = False

    async def SetLimits(self, request: pb.SetLimitsRequest, context: Any) -> pb.SetLimitsResponse:
        """From the next decision on."""
        wanted = Limits(request.min_workers, request.max_workers)
        await self._order(replace(self._scaling.orders, limits=wanted))
        return pb.SetLimitsResponse()

    async def Pause(self, request: pb.PauseRequest, context: Any) -> pb.PauseResponse:
        """Decides on, acts no more; or acts again."""
        await self._order(replace(self._scaling.orders, paused=request.paused))
        return pb.PauseResponse()

    async def _order(self, orders: Orders) -> None:
        if not self._lease.held:
            raise FailedPrecondition(
                f"this autoscaler is not the active one; ask {self._lease.holder or 'again in some seconds'}"
            )
        await limits.save(self._store, orders)
        self._scaling.obey(orders)


def _decision(decided: Decided) -> pb.ScalingDecision:
    decision = decided.decision
    return pb.ScalingDecision(
        unix_ms=decided.unix_ms,
        target=decision.target,
        previous=decided.previous,
        reason=decision.reason,
        needed=decision.needed,
        panic=decision.panic,
    )


def _queue(view: QueueView) -> pb.QueueState:
    held = view.running if view.depth.unacknowledged is None else view.depth.unacknowledged
    return pb.QueueState(
        name=view.key.name,
        version=view.key.version,
        backlog=view.backlog,
        jobs=view.jobs,
        ready=view.depth.ready,
        unacknowledged=held,
        arrival_rate=view.arrival_rate,
        service_rate=view.service_rate,
        service_seconds=view.service_seconds or 0.0,
        oldest_seconds=view.oldest_seconds,
    )


def _worker(view: WorkerView) -> pb.WorkerState:
    return pb.WorkerState(
        id=view.id,
        phase=_PHASES[view.phase],
        running=view.running,
        models=sorted(view.models),
        resident_bytes=view.resident_bytes,
        age_seconds=view.age,
    )
