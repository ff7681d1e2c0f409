"""Triton model repositories that the tests make."""

from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support import models

ADD_CONFIG = """
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 16 ] label_filename: "labels.txt" } ]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 300
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy { max_queue_size: 50 default_timeout_microseconds: 100000 }
}
version_policy: { specific: { versions: [ 1, 3 ] } }
parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
model_warmup [ {
  name: "once" batch_size: 4
  inputs { key: "x" value: { data_type: TYPE_FP32 dims: [ 16 ] random_data: true } }
} ]
response_cache { enable: true }
"""


def add_model(
    repository: Path,
    name: str,
    *,
    config: str | None = None,
    versions: Iterable[int] = (1,),
    make: Callable[[Path], Path] = models.add_one,
    file: str = "model.onnx",
) -> Path:
    """MODEL/VERSION/model.onnx, and config.pbtxt if there is to be one; the model's folder."""
    folder = repository / name
    for number in versions:
        (folder / str(number)).mkdir(parents=True)
        make(folder / str(number) / file)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    return folder


def add_versions(repository: Path, name: str = "add") -> Path:
    """A model of versions 1, 2 and 3, which add 1, 2 and 3; its config serves 1 and 3."""
    folder = repository / name
    for number in (1, 2, 3):
        (folder / str(number)).mkdir(parents=True)
        models.add(folder / str(number) / "model.onnx", float(number))
    (folder / "config.pbtxt").write_text(f'name: "{name}"\n{ADD_CONFIG}')
    (folder / "labels.txt").write_text("even\nodd\n")
    return folder


def add_ensemble(repository: Path, name: str, first: str, second: str) -> Path:
    """x → first, version 1 → second → y; each takes x and gives y of 16."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    tensors = "".join(
        f'{kind} {{ name: "{name}" data_type: TYPE_FP32 dims: [ 16 ] }} '
        for kind, name in (("input", "x"), ("output", "y"))
    )
    steps = "".join(
        f'''step {{ model_name: "{model}" model_version: {version}
            input_map {{ key: "x" value: "{taken}" }} output_map {{ key: "y" value: "{given}" }} }} '''
        for model, version, taken, given in ((first, 1, "x", "between"), (second, -1, "between", "y"))
    )
    config = f'platform: "ensemble" max_batch_size: 8 {tensors} ensemble_scheduling {{ {steps} }}'
    (folder / "config.pbtxt").write_text(config)
    return folder
