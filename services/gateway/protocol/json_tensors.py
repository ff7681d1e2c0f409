"""Requests and responses of the protocol's HTTP form: tensors as JSON."""

import base64
import json
from itertools import chain
from typing import Any

import numpy as np
from google.protobuf.json_format import ParseDict, ParseError

from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from services.common.datatypes import DATATYPES
from services.common.errors import InvalidArgument, Unimplemented

_PARAMETER_FIELDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def request_from_json(body: bytes, name: str, version: str) -> ModelInferRequest:
    """The gRPC form of an HTTP request. Raises InvalidArgument where the JSON is not one."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise InvalidArgument('the body must be an object with a list "inputs"')
    inputs = [_input(item, index) for index, item in enumerate(document["inputs"])]
    shell: dict[str, Any] = {"model_name": name, "model_version": version, "id": document.get("id", "")}
    shell["inputs"] = inputs
    shell["outputs"] = _outputs(document.get("outputs", []))
    shell["parameters"] = _parameters(document.get("parameters", {}))
    try:
        return ParseDict(shell, ModelInferRequest())
    except (ParseError, UnicodeError, OverflowError) as error:
        raise InvalidArgument(f"the request does not fit the protocol: {_shown(error)}") from error


def _shown(error: Exception) -> str:
    """JSON may hold halves of UTF-16 pairs, which no answer can carry."""
    return str(error)[:500].encode(errors="replace").decode()


def _input(item: Any, index: int) -> dict[str, Any]:
    """One input in protobuf's JSON form, with typed contents."""
    if not isinstance(item, dict):
        raise InvalidArgument(f"inputs[{index}] must be an object with name, datatype, shape and data")
    datatype = DATATYPES.get(str(item.get("datatype")))
    if datatype is None:
        raise InvalidArgument(
            f"inputs[{index}] has datatype {item.get('datatype')!r}; known are {', '.join(DATATYPES)}"
        )
    if not datatype.contents:
        raise Unimplemented(f"inputs[{index}]: {datatype.name} cannot be sent as JSON; use gRPC with raw contents")
    values = _flat(item.get("data"))
    if datatype.name == "BYTES":
        try:
            values = [base64.b64encode(str(value).encode()).decode() for value in values]
        except UnicodeError as error:
            raise InvalidArgument(f"inputs[{index}].data holds half of a UTF-16 pair, which is no text") from error
    return {
        "name": item.get("name"),
        "datatype": datatype.name,
        "shape": item.get("shape"),
        "contents": {datatype.contents: values},
    }


def _flat(data: Any) -> list[Any]:
    """Nested lists in row-major order, iteratively: depth is the client's to choose."""
    values = data if isinstance(data, list) else [data]
    while any(isinstance(value, list) for value in values):
        values = list(chain.from_iterable(value if isinstance(value, list) else [value] for value in values))
    return values


def _outputs(outputs: Any) -> list[dict[str, str]]:
    if not isinstance(outputs, list) or not all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in outputs
    ):
        raise InvalidArgument('"outputs" must be a list of objects, each with the "name" of an output')
    return [{"name": item["name"]} for item in outputs]


def _parameters(parameters: Any) -> dict[str, Any]:
    if not isinstance(parameters, dict):
        raise InvalidArgument('"parameters" must be an object')
    result = {}
    for key, value in parameters.items():
        field = _PARAMETER_FIELDS.get(type(value))
        if field is None:
            raise InvalidArgument(f"parameter '{key}' must be a boolean, a number or a string")
        result[key] = {field: value}
    return result


def response_to_json(response: ModelInferResponse) -> dict[str, Any]:
    """The HTTP form of a response whose tensors are raw."""
    outputs = []
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        outputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "data": _values(tensor.datatype, raw),
            }
        )
    document = {"model_name": response.model_name, "model_version": response.model_version, "outputs": outputs}
    return document | ({"id": response.id} if response.id else {})


def _values(datatype: str, raw: bytes) -> list[Any]:
    if datatype == "BYTES":
        values, offset = [], 0
        while offset < len(raw):
            end = offset + 4 + int.from_bytes(raw[offset : offset + 4], "little")
            values.append(raw[offset + 4 : end].decode(errors="replace"))
            offset = end
        return values
    if datatype == "BF16":
        return list((np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32).tolist())
    return list(np.frombuffer(raw, DATATYPES[datatype].numpy).tolist())
