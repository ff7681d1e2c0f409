"""Texts to token ids: the package, and the runtime against the library's own answers."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from headrace.packages import PackageError, read_package
from services.common.errors import FailedPrecondition, InvalidArgument
from services.common.tensors import Array
from services.worker.runtime import load_model
from services.worker.runtime.port import LoadedModel

WORDS = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "the", "wheel", "turns", "größe"])}


def package(folder: Path, settings: str = "", *, padded: bool = False) -> Path:
    """Whole words; [CLS] before each text; cut after 3 tokens, if one lets the file have its way."""
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    tokenizer.enable_truncation(3)
    if padded:
        tokenizer.enable_padding(direction="left", pad_id=1, pad_token="[UNK]", length=16)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "model.yaml").write_text(f"runtime: tokenizer\n{settings}")
    return folder


def loaded(folder: Path) -> LoadedModel:
    return load_model(folder, read_package(folder).spec, 1)


def texts(*given: str) -> dict[str, Array]:
    return {"text_input": np.array([text.encode() for text in given], object)}


def test_rows_are_padded_to_the_longest_of_their_batch(tmp_path: Path) -> None:
    outputs = loaded(package(tmp_path / "t")).run(texts("the wheel turns", "größe", ""))
    assert outputs["input_ids"].tolist() == [[2, 3, 4, 5], [2, 6, 0, 0], [2, 0, 0, 0]]
    assert outputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]
    assert all(array.dtype == np.int64 for array in outputs.values())


def test_the_file_says_how_it_is_padded_and_the_manifest_what_comes_out(tmp_path: Path) -> None:
    outputs = loaded(package(tmp_path / "t", "tokenizer: {token_type_ids: true}\n", padded=True)).run(
        texts("the wheel", "the")
    )
    assert outputs["input_ids"].tolist() == [[2, 3, 4], [1, 2, 3]]
    assert outputs["token_type_ids"].shape == (2, 3)


def test_long_texts_are_cut_or_refused_as_the_package_says(tmp_path: Path) -> None:
    cut = loaded(package(tmp_path / "cut", "tokenizer: {max_length: 2, truncation: true}\n"))
    assert cut.run(texts("the wheel turns"))["input_ids"].tolist() == [[2, 3]]
    refused = loaded(package(tmp_path / "refused", "tokenizer: {max_length: 3}\n"))
    with pytest.raises(InvalidArgument, match=r"text 1 has 4 tokens; expected 3 at most"):
        refused.run(texts("the wheel", "the wheel turns"))


def test_a_package_is_one_file_with_a_signature(tmp_path: Path) -> None:
    found = read_package(package(tmp_path / "t"))
    assert list(found.files) == ["tokenizer.json"]
    assert [(item.name, item.datatype, list(item.shape)) for item in found.spec.outputs] == [
        ("input_ids", "INT64", [-1, -1]),
        ("attention_mask", "INT64", [-1, -1]),
    ]
    assert found.spec.batching.max_batch_size == 64


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = package(tmp_path / "t", "tokenizer: {truncation: true}\n")
    with pytest.raises(PackageError, match=r"line 2, tokenizer\.truncation: .*set tokenizer\.max_length"):
        read_package(folder)
    (folder / "model.yaml").write_text("runtime: tokenizer\n")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(PackageError, match="the tokenizers library cannot load it"):
        read_package(folder)
    spec = read_package(package(tmp_path / "good")).spec
    with pytest.raises(FailedPrecondition, match=r"cannot load 'tokenizer\.json'"):
        load_model(folder, spec, 1)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(PackageError, match="not there"):
        read_package(folder)
