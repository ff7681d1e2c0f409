"""HTTP bodies that no honest client sends to POST /v2/models/NAME/infer."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

_ODD: list[Any] = [None, True, -1, 2**70, 1e400, float("nan"), "", "x", "\0", "\ud800", [], [[]], {}, {"a": 1}, [None]]


def hostile_json(random: Random) -> tuple[str, bytes]:
    """A path, and a body that does not belong there: each is to be answered with a status of 400 to 499, or 501."""
    path = random.choice(["add_one", "double", "echo_text", "nope", "add_one/versions/7", "a%00b", "%2e%2e"])
    return f"/v2/models/{path}/infer", random.choice(_KINDS)(random)


def _good() -> dict[str, Any]:
    """What `double` takes."""
    return {"inputs": [{"name": "x", "datatype": "INT64", "shape": [2, 1], "data": [1, 2]}]}


def _no_json(random: Random) -> bytes:
    whole = json.dumps(_good()).encode()
    garbage = [
        whole[: random.randrange(len(whole))],
        random.randbytes(50),
        b"[" * 100_000,
        b"\xff\xfe",
        b"1e999",
        b"nul",
    ]
    return random.choice(garbage)


def _no_request(random: Random) -> bytes:
    return json.dumps(random.choice(_ODD)).encode()


def _no_fields(random: Random) -> bytes:
    """A member of the request is missing or of another type."""
    document = _good()
    match random.choice(["inputs", "id", "outputs", "parameters"]):
        case "inputs":
            document["inputs"] = random.choice([*_ODD, [*document["inputs"], *document["inputs"]]])
        case "id":
            document["id"] = random.choice([5, [], {}, True, "\ud800"])
        case "outputs":
            document["outputs"] = random.choice([5, "y", True, [{}], [{"name": 5}], [{"name": "nope"}], ["y"], [[]]])
        case _:
            document["parameters"] = random.choice([5, "x", [1], {"a": None}, {"a": {}}, {"timeout": "soon"}])
    return json.dumps(document).encode()


def _no_tensor(random: Random) -> bytes:
    """The tensor is not what it says."""
    document = _good()
    tensor = document["inputs"][0]
    key = random.choice(list(tensor))
    wrong: dict[str, list[Any]] = {
        "name": [None, 5, "", "y", [], "\ud800", "x" * 5000],
        "datatype": [None, 5, "", "BF16", "FP32", "BYTES", "int64", [], {}],
        "shape": [None, 2, "2,1", [], [2], [3, 1], [-1, 1], [2**70, 1], [2.5, 1], [None, 1], [[2], [1]], {"0": 2}],
        "data": [
            None,
            "x",
            [],
            [1],
            [1, 2, 3],
            ["a", "b"],
            [None, None],
            [1.5, 2],
            [2**70, 1],
            {},
            [{}, {}],
            [True, []],
        ],
    }
    if random.random() < 0.2:
        del tensor[key]
    else:
        tensor[key] = random.choice(wrong[key])
    return json.dumps(document).encode()


_KINDS: list[Callable[[Random], bytes]] = [_no_json, _no_request, _no_fields, _no_tensor]
