"""Vectors of texts: what a package says, what is refused, and that company in a batch changes nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.packages import PackageError, read_package
from headrace.v1.model_pb2 import EmbeddingSpec
from services.common.errors import InvalidArgument
from services.common.tensors import Array
from services.worker.runtime.embedding import EmbeddingModel, groups
from tests.support.embedding_models import LONGEST, expected, save_bert, save_llama, token_ids

TEXTS = ["the wheel turns", "water", "a rather longer text that is over eight tokens", "Größe"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama") / "model")


def spec_of(folder: Path) -> EmbeddingSpec:
    return read_package(folder).spec.embedding


def texts(*given: str) -> dict[str, Array]:
    return {"text_input": np.array([text.encode() for text in given], dtype=object)}


def test_a_folder_says_how_its_texts_are_pooled(bert: Path, llama: Path) -> None:
    package = read_package(bert)
    assert package.spec.runtime == "embedding"
    assert package.spec.embedding == EmbeddingSpec(pooling="mean", normalize=True, max_length=LONGEST, dimensions=48)
    assert set(package.files) == {"config.json", "tokenizer.json", "modules.json", "model.safetensors"}
    assert (spec_of(llama).pooling, spec_of(llama).dimensions) == ("last", 64)


def test_the_manifest_stands_over_the_folder(tmp_path: Path) -> None:
    manifest = "runtime: embedding\nembedding: {pooling: mean, normalize: false, max_length: 9, dtype: bfloat16}\n"
    said = spec_of(save_llama(tmp_path / "model", manifest))
    wanted = EmbeddingSpec(pooling="mean", normalize=False, max_length=9, dimensions=64, dtype="bfloat16")
    assert said == wanted


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("embedding: {pooling: mean}", "line 1, embedding: this is for runtime embedding"),
        ("runtime: embedding\nembedding: {pooling: max}", "line 2, embedding.pooling: "),
        ("runtime: embedding\nembedding: {max_length: 9999}", "line 2, embedding.max_length: the model has 512"),
    ],
)
def test_a_wrong_manifest_names_line_and_key(tmp_path: Path, manifest: str, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        read_package(save_llama(tmp_path / "model", manifest))


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], "goes through Dense; only pooling"),
        ("modules.json", {"type": "x"}, "not a list of modules"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "got pooling_mode_max_tokens"),
    ],
)
def test_encoders_that_need_more_than_pooling_are_refused(
    tmp_path: Path, path: str, content: Any, message: str
) -> None:
    folder = save_bert(tmp_path / "model")
    (folder / path).write_text(json.dumps(content))
    with pytest.raises(PackageError, match=message):
        read_package(folder)


@pytest.mark.parametrize(
    ("family", "pooling"), [("bert", "mean"), ("bert", "cls"), ("llama", "last"), ("llama", "mean")]
)
def test_each_vector_is_what_transformers_gives_for_the_text_alone(
    request: pytest.FixtureRequest, family: str, pooling: str
) -> None:
    folder: Path = request.getfixturevalue(family)
    spec = spec_of(folder)
    spec.pooling, spec.dtype = pooling, "float32"
    model = EmbeddingModel(folder, spec, 1)
    outputs = model.run(texts(*TEXTS))
    for text, vector, count in zip(TEXTS, outputs["embedding"], outputs["tokens"], strict=True):
        np.testing.assert_allclose(vector, expected(folder, text, pooling), atol=2e-6)
        assert count == len(token_ids(folder, text))
    ids = [token_ids(folder, text) for text in TEXTS]
    longest = max(map(len, ids))
    padded = np.array([row + [-1] * (longest - len(row)) for row in ids])
    by_ids = model.run({"token_ids": padded})["embedding"]
    np.testing.assert_allclose(by_ids.astype(np.float32), outputs["embedding"].astype(np.float32), atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "either text_input or token_ids"),
        (texts("x" * 100), f"text 0 has 102 tokens; the model takes 1 to {LONGEST}"),
        ({"token_ids": np.array([[5], [-1]])}, "text 1 has 0 tokens"),
        ({"token_ids": np.array([[600]])}, "there is no token 600; the model's ids are 0 to 511"),
    ],
)
def test_what_cannot_be_embedded_is_refused(bert: Path, inputs: dict[str, Array], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        EmbeddingModel(bert, spec_of(bert), 1).run(inputs)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_groups_hold_every_row_once_and_no_more_tokens_than_allowed(lengths: list[int], most: int) -> None:
    made = list(groups(lengths, most))
    assert sorted(place for group in made for place in group) == list(range(len(lengths)))
    for group in made:
        assert len(group) == 1 or len(group) * max(lengths[place] for place in group) <= most
