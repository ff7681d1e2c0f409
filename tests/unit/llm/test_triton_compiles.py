"""Triton's kernels compile to machine code for a Hopper GPU, which needs triton but no GPU."""

import os
from dataclasses import replace
from typing import Any

import pytest
import torch

from services.worker.llm.attention.port import KVShape

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter takes the compiler's place", allow_module_level=True)

# What a program may take of an A100's shared memory; an H100 has more.
SHARED = 163 << 10
LLAMA = KVShape(1, 32, 8, 128, 16, torch.bfloat16, torch.device("cpu"))
GEMMA = KVShape(1, 8, 4, 256, 16, torch.bfloat16, torch.device("cpu"))


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any], **options: Any) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    places = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("shape", [LLAMA, GEMMA, replace(GEMMA, dtype=torch.float32)])
def test_attention(shape: KVShape, decode: bool) -> None:
    from services.worker.llm.attention import triton as ours

    if shape.dtype == torch.float32 and not decode:
        pytest.skip("compiles in 20 seconds")
    kind = "*bf16" if shape.dtype == torch.bfloat16 else "*fp32"
    types = dict.fromkeys(("query", "keys", "values", "output"), kind)
    types |= dict.fromkeys(("part_sums", "part_weights"), "*fp32" if decode else kind)
    types |= dict.fromkeys(("tables", "tile_chunks", "tile_tokens", "rows", "firsts", "starts", "counts"), "*i32")
    types |= dict.fromkeys(("columns", "query_token", "query_head", "window", "parts"), "i32")
    types |= {"scale": "fp32", "cap": "fp32"}
    constants = ours.constants(shape, rows=16 if decode else 64, split=decode, decode=decode, capped=shape.size == 256)
    made = compiled(ours._attend, types, constants, num_stages=ours.stages(shape.dtype))
    assert made.asm["cubin"]
    assert made.metadata.shared <= SHARED


def test_joining() -> None:
    from services.worker.llm.attention import triton as ours

    types = {"output": "*bf16", "part_sums": "*fp32", "part_weights": "*fp32", "parts": "i32"}
    assert compiled(ours._join, types, {"SIZE": 128, "WIDTH": 128, "MOST": 32}).asm["cubin"]
