"""What the registry promises to ensembles, over each store, by whichever of two registries their models change."""

import asyncio

import grpc
import pytest
from grpc import aio

from headrace.v1 import registry_pb2 as pb
from headrace.v1.model_pb2 import EnsembleSpec, EnsembleStep, ModelSpec, TensorSpec
from headrace.v1.rollout_pb2 import PromoteRequest, RollbackRequest
from tests.support.registries import SPEC, Registry

# Enough of them: without turns (services/registry/changes.py) the first few break an ensemble.
ROUNDS = 5


def following(model: str, version: str) -> ModelSpec:
    """An ensemble of one step."""
    steps = EnsembleSpec(steps=[EnsembleStep(model=model, version=version)])
    return ModelSpec(runtime="ensemble", entry="model.onnx", ensemble=steps)


@pytest.mark.parametrize("followed", ["production", "latest"])
async def test_no_ensemble_gets_a_version_that_does_not_fit_it(
    registries: tuple[Registry, Registry], followed: str
) -> None:
    first, second = registries
    member, pipeline = f"member-{followed}", f"pipeline-{followed}"
    file = await first.upload(b"member")
    await first.publish(member, file)
    await first.rollouts.Promote(PromoteRequest(name=member, version=1, weight=100, expected_revision=-1))
    await first.publish(pipeline, file, spec=following(member, followed))
    other = ModelSpec()
    other.CopyFrom(SPEC)
    other.outputs[0].datatype = "INT64"
    refused = f"ensemble '{pipeline}' version 1 follows '{followed}' of '{member}', and version 2 does not fit: .*INT64"
    if followed == "latest":
        with pytest.raises(aio.AioRpcError, match=refused):
            await second.publish(member, file, spec=other)
        assert await second.publish(member, file) == 2
        return
    assert await second.publish(member, file, spec=other) == 2
    with pytest.raises(aio.AioRpcError, match=refused) as error:
        await second.rollouts.Promote(PromoteRequest(name=member, version=2, weight=100, expected_revision=-1))
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    # On trial it is nobody's production yet.
    await second.rollouts.Promote(PromoteRequest(name=member, version=2, weight=10, expected_revision=-1))
    assert (await first.model(member)).aliases["production"] == 1


async def test_a_rollback_goes_through_and_says_which_ensemble_it_leaves_behind(
    registries: tuple[Registry, Registry],
) -> None:
    first, second = registries
    file = await first.upload(b"returned")
    other = ModelSpec()
    other.CopyFrom(SPEC)
    other.outputs[0].datatype = "INT64"
    for spec in (SPEC, other):
        await first.publish("returned", file, spec=spec)
    await first.rollouts.Promote(PromoteRequest(name="returned", version=2, weight=100, expected_revision=-1))
    await second.publish("behind", file, spec=following("returned", "production"))
    back = await second.rollouts.Rollback(RollbackRequest(name="returned", reason="too slow", expected_revision=-1))
    assert back.rollout.stable == 1
    assert back.rollout.reason.startswith("too slow; ensemble 'behind' version 1 follows 'production' of 'returned'")


@pytest.mark.parametrize("against", ["alias", "promotion", "latest", "deletion"])
async def test_of_a_push_and_what_would_break_it_at_once_one_is_refused(
    registries: tuple[Registry, Registry], against: str
) -> None:
    """Each through a registry of its own, at the same moment, again and again."""
    first, second = registries
    member, pipeline = f"raced-{against}", f"racing-{against}"
    file = await first.upload(b"raced")
    other = ModelSpec()
    other.CopyFrom(SPEC)
    other.outputs[0].datatype = "INT64"
    await first.publish(member, file)
    if against != "latest":
        await first.publish(member, file, spec=other)

    async def prepare() -> None:
        """The member's version 1, or its newest one, is what the ensemble would follow."""
        if against == "alias":
            await first.stub.SetAlias(pb.SetAliasRequest(name=member, alias="good", version=1))
        elif against == "promotion":
            await first.rollouts.Promote(PromoteRequest(name=member, version=1, weight=100, expected_revision=-1))
        elif against == "latest":
            await first.publish(member, file)

    async def breaking(number: int) -> None:
        if against == "alias":
            await second.stub.SetAlias(pb.SetAliasRequest(name=member, alias="good", version=2))
        elif against == "promotion":
            await second.rollouts.Promote(PromoteRequest(name=member, version=2, weight=100, expected_revision=-1))
        elif against == "latest":
            await second.publish(member, file, spec=other)
        else:
            await second.stub.DeleteVersion(pb.DeleteVersionRequest(name=member, version=number))

    for _ in range(ROUNDS):
        await prepare()
        number = await first.publish(member, file) if against == "deletion" else 0
        followed = {"alias": "good", "promotion": "production", "latest": "latest"}.get(against, str(number))
        # What it gives is declared, so that it does not just take what there is.
        spec = following(member, followed)
        spec.outputs.append(TensorSpec(name="y", datatype="FP32"))
        pushed, broken = await asyncio.gather(
            first.publish(pipeline, file, spec=spec), breaking(number), return_exceptions=True
        )
        refused = [error for error in (pushed, broken) if isinstance(error, aio.AioRpcError)]
        assert len(refused) == 1, (pushed, broken)
        assert refused[0].code() in {
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
        }, refused[0]
        if isinstance(pushed, int):
            await second.stub.DeleteModel(pb.DeleteModelRequest(name=pipeline))
