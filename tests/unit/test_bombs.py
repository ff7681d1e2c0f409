"""Small things that would become large ones: refused before they do."""

import base64
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from headrace.inference.grpc_service_pb2 import ModelInferRequest
from headrace.packages import PackageError, read_package
from headrace.v1.model_pb2 import ModelSpec, TensorSpec
from services.common.errors import InvalidArgument, Unauthenticated
from services.common.tenants.directory import TokenRules, read_directory
from services.common.tenants.tokens import TokenVerifier
from services.gateway.http import http_application
from services.gateway.openai.files import files_router
from services.gateway.protocol.signature import Signature
from tests.support import models
from tests.support.tenants import Issuer

# Nine levels of nine aliases each: 9^9 values of 300 bytes.
LAUGHS = "a0: &a0 [ha]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)
DEEP = "[" * 100_000
MOST = 1000
FORM = b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "line 2.*aliases are not taken"),
        ("x: &x 1\ny: *x", r"line 2.*what '\*x' stands for"),
        (DEEP, "nested deeper than 32 levels"),
        ("#" * 2_000_000, "2,000,000 characters; at most 1,048,576"),
    ],
    ids=["laughs", "alias", "deep", "long"],
)
def test_yaml_that_would_grow(tmp_path: Path, text: str, message: str) -> None:
    models.free_axes(tmp_path / "model.onnx")
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(PackageError, match=f"model.yaml.*{message}"):
        read_package(tmp_path)
    with pytest.raises(InvalidArgument, match=rf"(?s)not YAML: .*{message.rpartition('.*')[2]}"):
        read_directory(text)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "model.safetensors.index.json"])
def test_nested_json_in_a_language_model(tmp_path: Path, file: str) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 8}
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 8}))
    (tmp_path / "tokenizer.json").write_text("{}")
    empty = b"{}"
    (tmp_path / "model.safetensors").write_bytes(len(empty).to_bytes(8, "little") + empty)
    deep = DEEP.encode()
    (tmp_path / file).write_bytes(len(deep).to_bytes(8, "little") + deep if file.endswith("tensors") else deep)
    with pytest.raises(PackageError, match=file.partition(".")[0]):
        read_package(tmp_path)


def test_a_torch_archive_that_is_a_zip_bomb(tmp_path: Path) -> None:
    good, bomb = models.exported_sum(tmp_path / "good.pt2"), tmp_path / "bomb.pt2"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bomb, "w") as target:
        root = source.namelist()[0].split("/")[0]
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
        target.writestr(f"{root}/extra/zeros", bytes(50_000_000), zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1_000_000
    with pytest.raises(PackageError, match="holds compressed entries"):
        read_package(bomb)
    # Entries that overlap: each claims to be as large as the largest.
    lying = bytearray(good.read_bytes())
    with zipfile.ZipFile(good) as source:
        size, place = max(entry.file_size for entry in source.infolist()), source.start_dir
    while (place := lying.find(b"PK\x01\x02", place)) >= 0:
        lying[place + 20 : place + 28] = size.to_bytes(4, "little") * 2
        place += 46
    bomb.write_bytes(lying)
    with pytest.raises(PackageError, match=r"more than the whole file has|archive is corrupted"):
        read_package(bomb)


@pytest.mark.parametrize(
    ("shape", "raw"),
    [
        ([2**32, 2**32], b""),  # 2^64, which is 0 in 64 bits
        ([2**62, 4], b""),
        ([2**40, 1], bytes(4)),
        ([0, 2**62], b""),
        ([2**62, 0], b""),
    ],
)
def test_shapes_that_are_larger_than_their_data(shape: list[int], raw: bytes) -> None:
    spec = ModelSpec(inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, -1])])
    request = ModelInferRequest(model_name="m", raw_input_contents=[raw])
    request.inputs.add(name="x", datatype="FP32", shape=shape)
    with pytest.raises(InvalidArgument, match="input 'x' has"):
        Signature.of(spec).check(request)


@pytest.mark.parametrize("sized", [True, False], ids=["its length says so", "it comes in pieces"])
@pytest.mark.parametrize(("path", "most"), [("/v2/models/m/infer", MOST), ("/v1/files", 2 * MOST)])
async def test_http_bodies_over_the_limit(path: str, most: int, sized: bool) -> None:
    read = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal read
        yield FORM
        for _ in range(1000):
            read += 100
            yield b"x" * 100

    transport = httpx2.ASGITransport(http_application({}, files_router(None), most_bytes=MOST))
    headers = {"content-type": "multipart/form-data; boundary=b"} if path == "/v1/files" else {}
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post(path, content=b"x" * (most + 1) if sized else pieces(), headers=headers)
    assert answer.status_code == 413
    said = answer.json()["error"]
    assert f"over the limit of {most} bytes" in (said["message"] if path.startswith("/v1/") else said)
    assert read <= most + 200, "the rest is not read"


def test_nested_json_in_a_token(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "jwks.json")
    verifier = TokenVerifier(TokenRules(issuer="https://login.example", audience="headrace", jwks="jwks.json"))
    verifier._keys = {}
    assert issuer
    head = base64.urlsafe_b64encode(DEEP.encode()).decode().rstrip("=")
    with pytest.raises(Unauthenticated, match="not valid here"):
        verifier.tenant_name(f"{head}.e30.e30")
