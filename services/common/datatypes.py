"""The Open Inference Protocol's data types: size on the wire, numpy's name, and the typed `contents` field."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Datatype:
    """One data type.

    Attributes:
        name: the protocol's name.
        size: bytes an element takes in raw contents; 0 for BYTES, whose elements are length-prefixed.
        numpy: numpy's dtype name; BF16 has none of its own and is carried as uint16 bits.
        contents: the field of InferTensorContents that carries it; empty where only raw contents can.
    """

    name: str
    size: int
    numpy: str
    contents: str


DATATYPES: dict[str, Datatype] = {
    datatype.name: datatype
    for datatype in (
        Datatype("BOOL", 1, "bool", "bool_contents"),
        Datatype("UINT8", 1, "uint8", "uint_contents"),
        Datatype("UINT16", 2, "uint16", "uint_contents"),
        Datatype("UINT32", 4, "uint32", "uint_contents"),
        Datatype("UINT64", 8, "uint64", "uint64_contents"),
        Datatype("INT8", 1, "int8", "int_contents"),
        Datatype("INT16", 2, "int16", "int_contents"),
        Datatype("INT32", 4, "int32", "int_contents"),
        Datatype("INT64", 8, "int64", "int64_contents"),
        Datatype("FP16", 2, "float16", ""),
        Datatype("BF16", 2, "uint16", ""),
        Datatype("FP32", 4, "float32", "fp32_contents"),
        Datatype("FP64", 8, "float64", "fp64_contents"),
        Datatype("BYTES", 0, "object", "bytes_contents"),
    )
}
