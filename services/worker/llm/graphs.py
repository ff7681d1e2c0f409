"""CUDA graphs: a step's kernels recorded once and launched as one, since launching them costs more than a small step.

All that is CUDA's own about it is here; what makes a step the same each time is in `padded.py`. A graph reads and
writes the memory it was recorded on, so every tensor that outlives the recording must stay where it is. The graphs of
all sizes share one pool for what they compute in between, as in vLLM and nano-vllm.
"""

from collections.abc import Callable

import torch

from services.common.errors import FailedPrecondition

Step = Callable[[], None]
Capture = Callable[[Step], Step]

# Runs before the recording: kernels are compiled, and libraries take their work space, outside of it.
_WARM_UPS = 2


def eager(step: Step) -> Step:
    """Records nothing: the step runs as it is written. For tests of all but the graphs themselves, on any device."""
    return step


def on_cuda(device: torch.device) -> Capture:
    """Records steps as CUDA graphs.

    Raises:
        FailedPrecondition: the device is none of CUDA's; from the function returned: a step cannot be recorded.
    """
    if device.type != "cuda":
        raise FailedPrecondition(f"cuda_graphs is set, but the model is on {device.type}; take it out of model.yaml")
    stream, pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def capture(step: Step) -> Step:
        graph = torch.cuda.CUDAGraph()
        try:
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    step()
            torch.cuda.current_stream(device).wait_stream(stream)
            # Other threads of the worker may use the device meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                step()
        except RuntimeError as error:
            raise FailedPrecondition(
                f"the decode step cannot be recorded as a CUDA graph: {error}; set cuda_graphs to false"
            ) from error
        return graph.replay

    return capture
