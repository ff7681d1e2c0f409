"""A package of a known service time, and requests for it."""

from pathlib import Path

import numpy as np

from services.common.tensors import Array

ROW: dict[str, Array] = {"x": np.ones((1, 4), np.float32)}


def identity(
    folder: Path,
    *,
    batch_ms: float,
    request_ms: float,
    max_batch_size: int = 8,
    max_requests: int = 1000,
    levels: str = "",
) -> Path:
    """A folder to push: batches take `batch_ms`, and `request_ms` for each row; `levels`: further keys of the queue."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(
        "runtime: identity\n"
        f"batching: {{max_batch_size: {max_batch_size}}}\n"
        f"queue: {{max_requests: {max_requests}, {levels}}}\n"
        f'parameters: {{batch_ms: "{batch_ms}", request_ms: "{request_ms}"}}\n'
    )
    return folder
