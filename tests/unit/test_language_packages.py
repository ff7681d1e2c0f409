"""Packages of language models: what a Hugging Face folder says, what is refused and why, and models from a hub."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from headrace.packages import PackageError, read_package
from tests.support.hub import running_hub

CONFIG = {
    "model_type": "llama",
    "max_position_embeddings": 2048,
    "vocab_size": 320,
    "architectures": ["LlamaForCausalLM"],
}
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def folder(path: Path, config: dict[str, Any] | None = None, *, manifest: str = "") -> Path:
    """As save_pretrained leaves it, small."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    (path / "tokenizer.json").write_text("{}")
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (path / "README.md").write_text("about it")
    save_file({"a": torch.zeros(4, 4), "b": torch.ones(2, dtype=torch.bfloat16)}, path / "model.safetensors")
    if manifest:
        (path / "model.yaml").write_text(manifest)
    return path


def test_a_folder_says_what_the_model_is(tmp_path: Path) -> None:
    package = read_package(folder(tmp_path / "model"))
    text = package.spec.text
    assert (package.spec.runtime, package.spec.entry) == ("llm", "config.json")
    assert (text.max_model_len, text.vocab_size, text.chat) == (2048, 320, True)
    assert set(package.files) == {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert package.spec.inputs[0].name == "text_input"


def test_every_key_for_language_models_arrives(tmp_path: Path) -> None:
    manifest = """
runtime: vllm
description: a llama
queue: {max_requests: 7, default_timeout_ms: 1000}
llm: {max_model_len: 1024, max_num_seqs: 8, max_num_batched_tokens: 512, kv_cache_memory: 1GiB, block_size: 32,
      prefix_caching: false, dtype: float32, tensor_parallel_size: 2}
"""
    spec = read_package(folder(tmp_path / "model", manifest=manifest)).spec
    text = spec.text
    assert (spec.runtime, spec.description, spec.queue.max_requests) == ("vllm", "a llama", 7)
    assert (text.max_model_len, text.max_num_seqs, text.max_num_batched_tokens) == (1024, 8, 512)
    assert (text.kv_cache_bytes, text.block_size, text.prefix_caching) == (2**30, 32, False)
    assert (text.dtype, text.tensor_parallel_size) == ("float32", 2)


def test_a_model_in_several_files_is_what_its_index_names(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    (path / "model.safetensors").rename(path / "model-1.safetensors")
    save_file({"z": torch.zeros(1)}, path / "consolidated.safetensors")
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors"}}))
    files = set(read_package(path).files)
    assert {"model-1.safetensors", index.name} < files
    assert "consolidated.safetensors" not in files
    index.write_text(json.dumps({"weight_map": {"c": "model-1.safetensors"}}))
    with pytest.raises(PackageError, match=r"weight_map.c: is in 'model-1.safetensors', which lacks it"):
        read_package(path)
    index.write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))
    with pytest.raises(PackageError, match=r"weight_map.a: is in 'model-2.safetensors', which is not there"):
        read_package(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vocab_size": 3}, "config.json, model_type: expected the name of the architecture"),
        ({"model_type": "llama"}, "config.json, vocab_size: expected a number over 0, got None"),
        ({**CONFIG, "auto_map": {}}, "config.json, auto_map: the model needs code of its own, which is never run"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused_by_its_key(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        read_package(folder(tmp_path / "model", config))


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("batching: {max_batch_size: 4}", "line 1, batching: this is for models of tensors"),
        ("llm: {max_num_seqs: 0}", "line 1, llm.max_num_seqs: .*greater than or equal to 1"),
        ("llm: {max_seqs: 3}", "line 1, llm.max_seqs: unknown key"),
        ("llm: {dtype: int3}", "line 1, llm.dtype: "),
        ("runtime: vllm\nllm: {cuda_graphs: true}", "llm.cuda_graphs: vLLM records graphs by itself"),
        ("runtime: openai", "line 1, openai: missing; expected base_url and model"),
        ("runtime: openai\nopenai: {base_url: 'ftp://x', model: m}", "line 2, openai.base_url: "),
    ],
)
def test_a_wrong_manifest_names_line_and_key(tmp_path: Path, manifest: str, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        read_package(folder(tmp_path / "model", manifest=manifest))


def test_pickles_missing_tokenizers_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    (path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(PackageError, match=r"_model.bin: .bin files are pickles.*save the weights as safetensors"):
        read_package(path)
    (path / "pytorch_model.bin").unlink()
    weights = path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(PackageError, match=r"model.safetensors, \w: its data is not where the header says"):
        read_package(path)
    weights.write_bytes(struct.pack("<Q", 2**40) + whole[8:])
    with pytest.raises(PackageError, match=r"model.safetensors: no safetensors file, or cut off"):
        read_package(path)
    weights.write_bytes(whole)
    (path / "tokenizer.json").unlink()
    with pytest.raises(PackageError, match=r"has no tokenizer.json; save a fast tokenizer"):
        read_package(path)
    (path / "model.yaml").write_text("runtime: vllm")
    with pytest.raises(PackageError, match=r"has no tokenizer; expected tokenizer.json or vocab.json with merges.txt"):
        read_package(path)
    weights.unlink()
    with pytest.raises(PackageError, match=r"has no .safetensors file"):
        read_package(path)


READ = """
import sys
from headrace.packages import PackageError, local_path, read_package
try:
    print(*sorted(read_package(local_path(sys.argv[1])).files))
except PackageError as error:
    sys.exit(str(error))
"""


def read_from_hub(reference: str, endpoint: str, cache: Path) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, since the hub's client reads its environment once."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "XDG_CACHE_HOME": str(cache), "HF_HOME": str(cache / "hf")}
    command = [sys.executable, "-c", READ, reference]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_a_model_comes_from_a_hub_without_its_pickles(tmp_path: Path) -> None:
    source = folder(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"a pickle")
    (source / "modeling.py").write_text("raise SystemExit")
    with running_hub(source, "org/small") as (endpoint, fetched):
        for reference in ("hf://org/small", "hf://org/small@main"):
            read = read_from_hub(reference, endpoint, tmp_path / "cache")
            assert read.stdout.split() == [
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
            ]
        assert not {"pytorch_model.bin", "modeling.py"} & set(fetched)
        before = len(fetched)
        assert read_from_hub("hf://org/small", endpoint, tmp_path / "cache").returncode == 0
        assert len(fetched) == before, "nothing is fetched twice"
        missing = read_from_hub("hf://org/none", endpoint, tmp_path / "cache")
        assert (missing.returncode, f"hf://org/none: cannot be had from {endpoint}" in missing.stderr) == (1, True)
    malformed = read_from_hub("hf://a/b/c", "http://127.0.0.1:9", tmp_path / "cache")
    assert "expected hf://org/name" in malformed.stderr
