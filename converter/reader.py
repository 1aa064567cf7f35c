"""Read a model file back into a graph, checking everything; the inverse of `writer`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from larq_clip.converter import codec, ir, memory, spec
from larq_clip.converter.codec import Kind
from larq_clip.converter.packing import unpack_constant
from larq_clip.converter.schema import larq_clip_generated as schema
from larq_clip.errors import ModelFileError

# What the generated accessors and NumPy raise on offsets and numbers that make no sense.
_BROKEN = (struct.error, ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError, AssertionError)
# Slots of string fields: 4 + 2 * the field's position in the schema's table.
_FIRST, _MODEL_PRODUCER, _MODEL_NAME = 4, 6, 8
MAX_TENSOR_RANK = 3
MAX_CONSTANT_RANK = 4
SIZE_MULTIPLE = 8  # a FlatBuffer is padded to the alignment of its largest scalar


@dataclass(frozen=True)
class ModelFile:
    """All that a file holds.

    Attributes:
        graph: the ops and tensors.
        offsets: place of each tensor in the arena, bytes.
        arena_bytes: size of the arena.
        producer: what wrote the file.
        file_bytes: size of the file.
        constant_bytes: data of its constants.
    """

    graph: ir.Graph
    offsets: Mapping[str, int]
    arena_bytes: int
    producer: str
    file_bytes: int
    constant_bytes: int


def read(data: bytes) -> ir.Graph:
    """The graph in the bytes of a .lcb file.

    Raises:
        ModelFileError: for anything that is not a valid file; it says what is wrong.
    """
    return read_model(data).graph


def read_model(data: bytes) -> ModelFile:
    """Everything in the bytes of a .lcb file.

    Raises:
        ModelFileError: for anything that is not a valid file; it says what is wrong.
    """
    data = bytes(data)
    if len(data) > codec.MAX_BYTES:
        raise ModelFileError(f"the file has {len(data)} bytes; a model file has at most {codec.MAX_BYTES}")
    if len(data) < 8 or data[4:8] != codec.IDENTIFIER:
        raise ModelFileError(
            f"not a larq_clip model file: {len(data)} bytes, identifier {data[4:8]!r}; accepted is "
            f"{codec.IDENTIFIER!r} at byte 4. Make one with larq_clip.convert_keras_model"
        )
    if len(data) % SIZE_MULTIPLE:
        raise ModelFileError(
            f"the model file is cut off: it has {len(data)} bytes, not a multiple of {SIZE_MULTIPLE}. "
            "Copy or convert it again"
        )
    try:
        return _read(data)
    except ModelFileError:
        raise
    except _BROKEN as error:
        raise ModelFileError(
            f"the model file is damaged or cut off ({len(data)} bytes): {error}. Convert the model again"
        ) from error


def _read(data: bytes) -> ModelFile:
    model = schema.Model.GetRootAs(data, 0)
    if model.Version() != codec.FORMAT_VERSION:
        raise ModelFileError(
            f"the model file has format version {model.Version()}; accepted is {codec.FORMAT_VERSION}. "
            "Convert the model with this version of larq_clip"
        )
    tables = [_table(model, "Tensors", i) for i in range(_count(model, "Tensors"))]
    tensors = [_tensor(t) for t in tables]
    names = [t.name for t in tensors]
    constants = [_table(model, "Constants", i) for i in range(_count(model, "Constants"))]
    ops = [_op(_table(model, "Ops", i), names, constants) for i in range(_count(model, "Ops"))]
    inputs = [_at(names, i, "an input") for i in _vector(model, "Inputs")]
    outputs = [_at(names, i, "an output") for i in _vector(model, "Outputs")]
    graph = ir.Graph.build(_text(model, _MODEL_NAME), tensors, ops, inputs, outputs)
    if len(graph.ops) != len(ops) or len(graph.tensors) != len(tensors):
        raise ModelFileError("the model file has ops or tensors that no output needs; convert the model again")
    if any(a is not b for a, b in zip(graph.ops, ops, strict=True)):
        raise ModelFileError("the ops of the model file are not in execution order; convert the model again")
    spec.check(graph, lowered=True)
    offsets = {name: table.Offset() for name, table in zip(names, tables, strict=True)}
    memory.check(graph, offsets, model.ArenaBytes())
    constant_bytes = sum(constant.DataLength() for constant in constants)
    return ModelFile(graph, offsets, model.ArenaBytes(), _text(model, _MODEL_PRODUCER), len(data), constant_bytes)


def _count(table: Any, field: str) -> int:
    number = getattr(table, f"{field}Length")()
    if number > codec.MAX_ITEMS:
        raise ModelFileError(f"the model file has {number} {field.lower()}; accepted are up to {codec.MAX_ITEMS}")
    return number


def _table(parent: Any, field: str, index: int) -> Any:
    return getattr(parent, field)(index)


def _vector(table: Any, field: str) -> list[int]:
    return [getattr(table, field)(i) for i in range(_count(table, field))]


def _text(table: Any, slot: int) -> str:
    """A string field; unlike the generated accessor this refuses a string that the end of the file cuts off."""
    tab = table._tab
    field = tab.Offset(slot)
    if field == 0:
        return ""
    start, length = tab.Vector(field), tab.VectorLen(field)
    text = bytes(tab.Bytes[start : start + length + 1])
    if len(text) != length + 1 or text[-1] != 0:
        raise ModelFileError("the model file is damaged or cut off: a name has no end. Convert the model again")
    return text[:-1].decode("utf-8")


def _at(items: list, index: int, what: str) -> Any:
    if not 0 <= index < len(items):
        raise ModelFileError(f"the model file names {what} by index {index}; there are {len(items)}")
    return items[index]


def _shape(table: Any, max_rank: int) -> tuple[int, ...]:
    rank = table.ShapeLength()
    if not 0 < rank <= max_rank:
        raise ModelFileError(f"the model file has a shape of {rank} axes; accepted are 1 to {max_rank}")
    return tuple(table.Shape(i) for i in range(rank))


def _tensor(table: Any) -> ir.Tensor:
    shape = _shape(table, MAX_TENSOR_RANK)
    number = table.FractionBitsLength()
    if number not in (0, 1, shape[-1]):
        raise ModelFileError(f"a tensor of shape {shape} has {number} fraction bits; accepted are 0, 1 and {shape[-1]}")
    fraction_bits = table.FractionBitsAsNumpy().tolist() if number else ()
    return ir.Tensor(_text(table, _FIRST), ir.DType(table.Dtype()), shape, tuple(fraction_bits))


def _op(table: Any, tensors: list[str], constants: list[Any]) -> ir.Op:
    name = _text(table, _FIRST)
    op_type = codec.OP_BY_TAG.get(table.ParamsType())
    if op_type is None:
        raise ModelFileError(
            f"op {name!r} of the model file has type {table.ParamsType()}; accepted are 1 to {len(codec.OP_BY_TAG)}"
        )
    union = table.Params()
    params = getattr(schema, op_type.__name__)()
    params.Init(union.Bytes, union.Pos)
    inputs, outputs = (
        tuple(_at(tensors, i, f"a tensor of op {name!r}") for i in _vector(table, field))
        for field in ("Inputs", "Outputs")
    )
    return op_type(name, inputs, outputs, **_fields(params, codec.OP_FIELDS[op_type], constants))


def _fields(table: Any, fields: tuple[codec.Field, ...], constants: list[Any]) -> dict[str, Any]:
    """The fields of a table, as the IR holds them."""
    found: dict[str, Any] = {}
    for field in fields:
        if field.kind is Kind.TABLES:
            number = _count(table, field.schema_name)
            tables = [getattr(table, field.schema_name)(i) for i in range(number)]
            found[field.name] = tuple(_inner_table(field, inner, constants) for inner in tables)
        else:
            value = getattr(table, field.schema_name)()
            found[field.name] = _FIELD_READERS[field.kind](field, value, constants)
    return found


def _inner_table(field: codec.Field, table: Any, constants: list[Any]) -> Any:
    if table is None:
        if field.required:
            raise ModelFileError(f"an op of the model file has no {field.name}")
        return None
    return field.type(**_fields(table, codec.TABLE_FIELDS[field.type], constants))


def _struct(field: codec.Field, table: Any, constants: list[Any]) -> Any:
    if table is None:
        if field.required:
            raise ModelFileError(f"an op of the model file has no {field.name}")
        return field.type()
    return field.type(*(getattr(table, codec.schema_name(name))() for name in codec.STRUCT_FIELDS[field.type]))


def _number(field: codec.Field, value: int, constants: list[Any]) -> int:
    return int(value)


def _real(field: codec.Field, value: float, constants: list[Any]) -> float:
    return float(value)


def _enum(field: codec.Field, value: int, constants: list[Any]) -> Any:
    return field.type(value)


def _constant(field: codec.Field, index: int, constants: list[Any]) -> Any:
    if index == -1 and not field.required:
        return None
    table = _at(constants, index, f"the constant {field.name}")
    dtype = ir.DType(table.Dtype())
    if (dtype is ir.DType.BIT) != (field.kind is Kind.BITS):
        raise ModelFileError(f"the constant {field.name} of the model file has type {dtype.name.lower()}")
    if table.DataIsNone():
        raise ModelFileError(f"the constant {field.name} of the model file has no data")
    data = table.DataAsNumpy() if table.DataLength() else b""
    return unpack_constant(bytes(data), dtype, _shape(table, MAX_CONSTANT_RANK))


_FIELD_READERS: dict[Kind, Callable[[codec.Field, Any, list[Any]], Any]] = {
    Kind.STRUCT: _struct,
    Kind.NUMBER: _number,
    Kind.REAL: _real,
    Kind.ENUM: _enum,
    Kind.BITS: _constant,
    Kind.NUMBERS: _constant,
    Kind.TABLE: _inner_table,
}
