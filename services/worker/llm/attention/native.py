"""The CPU kernel of paged.cpp, called by ctypes.

A plain C interface instead of a torch extension: it compiles in three seconds instead of forty, needs neither torch's
headers nor ninja, and one binary serves every torch version. `library.py` finds the binary or has it compiled.
"""

import ctypes

import torch
from torch import Tensor

from services.common.errors import FailedPrecondition
from services.worker.llm.attention.library import library
from services.worker.llm.attention.port import KVShape, Rule, Step

_LANES = 16
_MAX_GROUP = 64


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("tables", "rows", "firsts", "starts", "counts", "slots")),
        ("columns", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("chunks", "tokens", "threads")),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values", "query", "key", "value", "output")),
        *((f"{name}_{axis}", ctypes.c_int64) for name in ("query", "key", "value") for axis in ("token", "head")),
        *((name, ctypes.c_int32) for name in ("heads", "kv_heads", "size", "window")),
        ("scale", ctypes.c_float),
        ("cap", ctypes.c_float),
    )


class NativeAttention:
    """Implements PagedAttention on a CPU, float32 and bfloat16.

    Raises:
        FailedPrecondition: this machine or this model is not for it.
    """

    def __init__(self, shape: KVShape, num_blocks: int) -> None:
        if shape.dtype not in _FUNCTIONS:
            raise FailedPrecondition(f"native attention takes float32 and bfloat16, not {shape.dtype}")
        if shape.block_size != _LANES or shape.size % _LANES or shape.heads // shape.kv_heads > _MAX_GROUP:
            raise FailedPrecondition(
                f"native attention takes blocks of {_LANES} tokens (not {shape.block_size}), heads of a multiple of"
                f" {_LANES} elements (not {shape.size}) and at most {_MAX_GROUP} heads for a kv head"
            )
        self.shape = shape
        self._function = getattr(library(), _FUNCTIONS[shape.dtype])
        blocks = (shape.layers, num_blocks, shape.kv_heads, shape.size * _LANES)
        self._keys = torch.zeros(blocks, dtype=shape.dtype)
        self._values = torch.zeros(blocks, dtype=shape.dtype)
        self._alive: Step | None = None
        self._step = _Step()

    def begin(self, step: Step) -> None:
        """Notes where the step's tensors lie, and keeps them there."""
        self._alive = step
        self._step = _Step(
            *(t.data_ptr() for t in (step.tables, step.rows, step.firsts, step.starts, step.counts, step.slots)),
            step.tables.stride(0),
            len(step.rows),
            len(step.slots),
            torch.get_num_threads(),
        )

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """See the port."""
        shape = self.shape
        tensors = [t if t.stride(-1) == 1 else t.contiguous() for t in (query, key, value)]
        output = query.new_empty(query.shape, dtype=shape.dtype)
        call = _Layer(
            self._keys[layer].data_ptr(),
            self._values[layer].data_ptr(),
            *(t.data_ptr() for t in tensors),
            output.data_ptr(),
            *(stride for t in tensors for stride in t.stride()[:2]),
            shape.heads,
            shape.kv_heads,
            shape.size,
            rule.window,
            rule.scale,
            rule.cap,
        )
        self._function(ctypes.byref(self._step), ctypes.byref(call))
        return output


_FUNCTIONS = {torch.float32: "headrace_attend_float32", torch.bfloat16: "headrace_attend_bfloat16"}
