"""The language model that comes with the repository, and the script that made it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from headrace.packages import read_package

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOLDER = EXAMPLES / "writer"


def test_it_is_a_package_of_less_than_five_megabytes() -> None:
    assert read_package(FOLDER).spec.text.max_model_len == 512
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 5_000_000


@torch.inference_mode()
def test_it_writes_what_it_was_trained_on() -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(FOLDER)
    model: Any = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    prompt = tokenizer('The "try" statement\n', return_tensors="pt", return_token_type_ids=False)
    written = tokenizer.decode(model.generate(**prompt, max_new_tokens=100, do_sample=False)[0])
    assert 'The "try" statement specifies exception handlers and/or cleanup code\nfor a group of statements:' in written


def test_the_script_makes_one(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "train_writer.py"), "--folder", str(tmp_path / "made"), "--steps", "2"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100, env={**os.environ})
    assert "2,164,800 parameters" in done.stdout
    assert read_package(tmp_path / "made").spec.text.vocab_size == 1024
