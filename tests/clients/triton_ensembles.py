"""NVIDIA's client and an ensemble, run by tests/e2e/test_ensembles.py: `python triton_ensembles.py HOST:PORT`."""

import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton

TEXTS = ["Return the arguments as a tuple of strings.", "self.items = [item for item in values]"]


def ask(client: Any) -> Any:
    """One request of two texts."""
    texts = triton.InferInput("text_input", [2], "BYTES")
    texts.set_data_from_numpy(np.array([text.encode() for text in TEXTS], object))
    return client.infer("prose", [texts])


def inference(client: Any) -> None:
    """Text in, label out."""
    answer = ask(client)
    assert answer.as_numpy("label").tolist() == [b"prose", b"code"]
    assert answer.as_numpy("probabilities").shape == (2, 2)


def configuration(client: Any) -> None:
    """The steps, with the versions that they name now, and what a model says that is no ensemble."""
    config = client.get_model_config("prose").config
    assert (config.platform, config.backend, config.max_batch_size) == ("ensemble", "", 32)
    assert config.WhichOneof("scheduling_choice") == "ensemble_scheduling"
    steps = [(step.model_name, step.model_version) for step in config.ensemble_scheduling.step]
    assert steps == [("tokenise", 1), ("embed", 1), ("classify", 1)], steps
    assert dict(config.ensemble_scheduling.step[2].input_map) == {"X": "vector"}
    assert [(item.name, list(item.dims)) for item in config.output] == [("label", []), ("probabilities", [2])]
    embed = client.get_model_config("embed").config
    assert embed.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert [group.count for group in embed.instance_group] == [1]
    metadata = client.get_model_metadata("prose")
    assert [(item.name, item.datatype, list(item.shape)) for item in metadata.inputs] == [("text_input", "BYTES", [-1])]


def statistics(client: Any) -> None:
    """A step counts for its own model, too."""

    def counts() -> dict[str, tuple[int, int]]:
        stats = client.get_inference_statistics().model_stats
        return {each.name: (each.inference_count, each.inference_stats.success.count) for each in stats}

    before = counts()
    ask(client)
    after = counts()
    for name in ("prose", "tokenise", "embed", "classify"):
        assert (after[name][0] - before[name][0], after[name][1] - before[name][1]) == (2, 1), name
    [embed] = client.get_inference_statistics("embed").model_stats
    assert [each.batch_size for each in embed.batch_stats] == [2]
    assert embed.inference_stats.compute_infer.ns > 0


def repository(client: Any) -> None:
    """Everything is there; what an ensemble needs is not unloaded under it."""
    index = {model.name: model.state for model in client.get_model_repository_index().models}
    assert index == dict.fromkeys(("prose", "tokenise", "embed", "classify"), "READY"), index
    try:
        client.unload_model("embed")
    except triton.InferenceServerException as error:
        assert "FAILED_PRECONDITION" in str(error.status()), error
        assert "step of ensemble 'prose'" in str(error), error
    else:
        raise AssertionError("a step of an ensemble in service was unloaded")
    client.unload_model("prose")
    client.unload_model("embed")
    try:
        client.load_model("prose")
    except triton.InferenceServerException as error:
        assert "headrace load embed" in str(error), error
    else:
        raise AssertionError("an ensemble was loaded without its step")
    client.load_model("embed")
    client.load_model("prose")
    inference(client)


def main(address: str) -> None:
    """Everything."""
    with triton.InferenceServerClient(address) as client:
        for check in (inference, configuration, statistics, repository):
            check(client)


if __name__ == "__main__":
    main(sys.argv[1])
