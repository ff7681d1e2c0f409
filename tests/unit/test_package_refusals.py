"""Packages: files that could run code, that are no models or that lie elsewhere are refused, with the file and why."""

import zipfile
from pathlib import Path
from typing import Any

import pytest

from headrace.packages import PackageError, read_package
from tests.support import models


class Evil:
    """Unpickling one makes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return Path.touch, (self.proof,)


def test_no_pickle_in_a_torch_archive_is_loaded(tmp_path: Path) -> None:
    import torch

    good = models.exported_sum(tmp_path / "good.pt2")
    evil, proof = tmp_path / "evil.pt2", tmp_path / "proof"
    torch.save(Evil(proof), tmp_path / "payload")
    payload = (tmp_path / "payload").read_bytes()
    config = '{"config": {"w": {"path_name": "weight_0", "is_param": true, "use_pickle": true, "tensor_meta": null}}}'
    cases: list[tuple[str, bytes, str]] = [
        ("data/sample_inputs/model.pt", payload, "sample inputs hold more than tensors"),
        ("data/weights/model_weights_config.json", config.encode(), "'w' is pickled"),
        ("data/weights/model.pt", payload, "may run code"),
        ("data/constants/opaque_obj_0", payload, "may run code"),
        ("data/aotinductor/model/x.so", b"", "may run code"),
    ]
    for name, content, message in cases:
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(evil, "w") as target:
            root = source.namelist()[0].split("/")[0]
            for entry in source.namelist():
                if entry != f"{root}/{name}":
                    target.writestr(entry, source.read(entry))
            target.writestr(f"{root}/{name}", content)
        with pytest.raises(PackageError, match=message):
            read_package(evil)
    with zipfile.ZipFile(evil, "w") as target:
        target.writestr("version", "1.0")
        target.writestr("serialized_state_dict.pt", payload)
    with pytest.raises(PackageError, match=r"evil\.pt2"):
        read_package(evil)
    assert not proof.exists()


@pytest.mark.parametrize("name", ["model.pt", "weights.pkl", "scaler.joblib", "x.bin", "MODEL.PTH"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(PackageError, match=f"{name}.*pickles and can run any code"):
        read_package(tmp_path / name)
    models.add_one(tmp_path / "model.onnx")
    with pytest.raises(PackageError, match=f"{name}.*pickles and can run any code"):
        read_package(tmp_path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no such file or folder"):
        read_package(tmp_path / "absent")
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(PackageError, match=r"broken\.onnx: "):
        read_package(tmp_path / "broken.onnx")
    (tmp_path / "broken.pt2").write_bytes(b"not an archive")
    with pytest.raises(PackageError, match=r"broken\.pt2: .*cannot load it"):
        read_package(tmp_path / "broken.pt2")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(PackageError, match=r"notes\.txt: expected a \.onnx file"):
        read_package(tmp_path / "notes.txt")
    with pytest.raises(PackageError, match=r"found broken\.onnx, broken\.pt2"):
        read_package(tmp_path)


def test_an_operator_that_the_runtime_lacks_is_refused_with_the_reason(tmp_path: Path) -> None:
    import onnx

    path = models.add_one(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    model.graph.node[0].op_type = "Invented"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match=r"ONNX Runtime .* cannot load it: .*Invented"):
        read_package(path)


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    package = tmp_path / "package"
    package.mkdir()
    models.add_one(package / "model.onnx")
    (package / "link.txt").symlink_to(tmp_path / "outside")
    with pytest.raises(PackageError, match=r"link\.txt: links are not followed"):
        read_package(package)
