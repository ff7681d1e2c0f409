"""What is loaded, and what is refused before anything of it runs."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from services.common.errors import FailedPrecondition, InvalidArgument
from services.worker.llm import loading
from services.worker.llm.attention import hook
from services.worker.llm.options import EngineOptions
from tests.support.llm_models import EOS, FAMILIES, save_model, tokenizer


def load(folder: Path, **options: object) -> loading.LanguageModel:
    hook.register()
    return loading.load(folder, EngineOptions(**options), attention=hook.NAME)  # type: ignore[arg-type]  # by name


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_says_its_context_and_its_end_tokens(tmp_path: Path, family: str) -> None:
    model = load(save_model(tmp_path, family))
    assert (model.max_model_len, model.vocab_size, model.eos_token_ids) == (512, 512, frozenset({EOS}))


def test_generation_config_names_the_end_tokens(tmp_path: Path) -> None:
    save_model(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 5]}))
    assert load(tmp_path).eos_token_ids == {3, 5}


def test_weights_in_parts(tmp_path: Path) -> None:
    whole, parts = save_model(tmp_path / "whole"), tmp_path / "parts"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(parts, max_shard_size="100KB")
    assert len(list(parts.glob("*.safetensors"))) > 2
    ours, theirs = load(parts).model.state_dict(), load(whole).model.state_dict()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FailedPrecondition, match=r"pickled \(pytorch_model.bin\).*save_pretrained"):
        load(tmp_path)


def test_models_that_bring_code_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    edit(tmp_path, architectures=["MyModel"], auto_map={"AutoModelForCausalLM": "mine.MyModel"})
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')")
    with pytest.raises(FailedPrecondition, match=r"MyModel.*never run here.*LlamaForCausalLM"):
        load(tmp_path)


def test_rope_that_depends_on_the_batch_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    edit(tmp_path, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    with pytest.raises(FailedPrecondition, match="'dynamic' depends on the longest sequence"):
        load(tmp_path)


def test_what_is_no_model_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FailedPrecondition, match="not JSON"):
        load(tmp_path)
    save_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FailedPrecondition, match="has no weights"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(FailedPrecondition, match="transformers cannot load the model"):
        load(tmp_path)


def test_weights_that_are_not_all_there_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    edit(tmp_path, num_hidden_layers=4)
    with pytest.raises(FailedPrecondition, match=r"the weights lack model.layers.3"):
        load(tmp_path)


def test_a_context_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="max_model_len is 1000, but the model has 512"):
        load(save_model(tmp_path), max_model_len=1000)


def test_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path, dtype=torch.bfloat16)
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: True)
    assert load(tmp_path).model.dtype == torch.bfloat16
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: False)
    assert load(tmp_path).model.dtype == torch.float32
    assert load(tmp_path, dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_tokenizer_in_older_files_is_converted(tmp_path: Path) -> None:
    save_model(tmp_path, "gpt2")
    whole = tokenizer()
    (tmp_path / "tokenizer.json").unlink()
    whole.model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    converted = loading.load_tokenizer(tmp_path)
    ids = whole.encode("the rest is silence").ids
    assert converted.encode("the rest is silence").ids == ids
    assert converted.decode(ids) == "the rest is silence"


def test_without_a_tokenizer_the_folder_is_told_what_lacks(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FailedPrecondition, match=r"the tokenizer does not load.*expected tokenizer\.json"):
        loading.load_tokenizer(tmp_path)
