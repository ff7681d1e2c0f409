"""Attention over a paged KV cache: one port, one file for each kernel, and the place that picks."""

from services.common.errors import FailedPrecondition
from services.worker.llm.attention.port import KVShape, PagedAttention
from services.worker.llm.options import AttentionName


def make_attention(name: AttentionName, shape: KVShape, num_blocks: int) -> PagedAttention:
    """The kernel of this name with its cache; "auto" takes the best that this machine runs.

    Raises:
        FailedPrecondition: the kernel that was named cannot run here; the message says why.
    """
    from services.worker.llm.attention.gather import GatherAttention  # noqa: PLC0415  # only what is needed

    if name in {"auto", "native"} and shape.device.type == "cpu":
        from services.worker.llm.attention.native import NativeAttention  # noqa: PLC0415

        try:
            return NativeAttention(shape, num_blocks)
        except FailedPrecondition:
            if name == "native":
                raise
    elif name in {"auto", "triton"} and shape.device.type == "cuda":
        try:
            from services.worker.llm.attention.triton import TritonAttention  # noqa: PLC0415

            return TritonAttention(shape, num_blocks)
        except (FailedPrecondition, ImportError) as error:
            if name == "triton":
                raise FailedPrecondition(f"triton attention does not run here: {error}") from error
    elif name not in {"auto", "gather"}:
        raise FailedPrecondition(f"attention '{name}' does not run on {shape.device.type}; set it to auto")
    return GatherAttention(shape, num_blocks)
