"""Write a lowered graph as a model file: a FlatBuffer after `schema/larq_clip.fbs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np

import larq_clip
from larq_clip.converter import codec, ir, memory, spec
from larq_clip.converter.codec import Kind
from larq_clip.converter.packing import constant_bytes, constant_dtype, pack_constant
from larq_clip.converter.schema import larq_clip_generated as schema
from larq_clip.errors import ConversionError

CONSTANT_ALIGNMENT = 16


def write(graph: ir.Graph) -> bytes:
    """The bytes of a .lcb file; the same graph gives the same bytes.

    Raises:
        larq_clip.converter.spec.SpecError: where the graph is not fully lowered.
        ConversionError: where the model is too large for the format.
    """
    spec.check(graph, lowered=True)
    return _Writer(graph).model()


def producer() -> str:
    """Name and version of this converter."""
    return f"larq-clip {larq_clip.__version__}"


class _Writer:
    """One use: tables are created from the inside out, as FlatBuffers wants it. What is the same is written once:
    constants, names, and vectors of numbers."""

    def __init__(self, graph: ir.Graph):
        self._graph = graph
        self._builder = flatbuffers.Builder(1 << 16)
        self._index = {name: i for i, name in enumerate(graph.tensors)}
        self._constants: list[int] = []
        self._written: dict[tuple, int] = {}  # offset, or a constant's index, by what it holds

    def model(self) -> bytes:
        graph, b = self._graph, self._builder
        self._check_limits()
        plan = memory.plan(graph)
        tensors = self._offsets([self._tensor(t, plan.offsets[t.name]) for t in graph.tensors.values()])
        ops = self._offsets([self._op(op) for op in graph.ops])
        self._check_count("constants", len(self._constants))
        constants = self._offsets(self._constants)
        inputs, outputs = self._tensor_indices(graph.inputs), self._tensor_indices(graph.outputs)
        made_by, name = self._string(producer()), self._string(graph.name)
        schema.ModelStart(b)
        schema.ModelAddVersion(b, codec.FORMAT_VERSION)
        schema.ModelAddProducer(b, made_by)
        schema.ModelAddName(b, name)
        schema.ModelAddTensors(b, tensors)
        schema.ModelAddConstants(b, constants)
        schema.ModelAddOps(b, ops)
        schema.ModelAddInputs(b, inputs)
        schema.ModelAddOutputs(b, outputs)
        schema.ModelAddArenaBytes(b, plan.arena_bytes)
        b.Finish(schema.ModelEnd(b), codec.IDENTIFIER)
        return bytes(b.Output())

    def _check_limits(self) -> None:
        graph = self._graph
        self._check_count("tensors", len(graph.tensors))
        self._check_count("ops", len(graph.ops))
        arrays = [(field, array) for op in graph.ops for field, array in codec.constants_of(op)]
        size = sum(constant_bytes(constant_dtype(a, bits=f.kind is Kind.BITS), a.shape) for f, a in arrays)
        if size > codec.MAX_BYTES // 2:  # the builder doubles its buffer
            raise ConversionError(
                f"model {graph.name!r} has {size} bytes of weights; a model file holds at most {codec.MAX_BYTES // 2}. "
                "Convert it in parts"
            )

    def _check_count(self, what: str, number: int) -> None:
        if number > codec.MAX_ITEMS:
            raise ConversionError(
                f"model {self._graph.name!r} has {number} {what}; a model file holds at most {codec.MAX_ITEMS}. "
                "Convert it in parts"
            )

    def _once(self, key: tuple, write: Callable[[], int]) -> int:
        if key not in self._written:
            self._written[key] = write()
        return self._written[key]

    def _numbers(self, numbers: tuple[int, ...] | list[int], dtype: str) -> int:
        array = np.asarray(numbers, dtype)
        return self._once((dtype, array.tobytes()), lambda: self._builder.CreateNumpyVector(array))

    def _string(self, text: str) -> int:
        return self._once(("text", text), lambda: self._builder.CreateString(text))

    def _tensor_indices(self, names: tuple[str, ...]) -> int:
        return self._numbers([self._index[name] for name in names], "<u4")

    def _offsets(self, offsets: list[int]) -> int:
        b = self._builder
        b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return b.EndVector()

    def _tensor(self, tensor: ir.Tensor, offset: int) -> int:
        b = self._builder
        name, shape = self._string(tensor.name), self._numbers(tensor.shape, "<u4")
        fraction_bits = self._numbers(tensor.fraction_bits, "<i1") if tensor.fraction_bits else None
        schema.TensorStart(b)
        schema.TensorAddName(b, name)
        schema.TensorAddDtype(b, int(tensor.dtype))
        schema.TensorAddShape(b, shape)
        if fraction_bits is not None:
            schema.TensorAddFractionBits(b, fraction_bits)
        schema.TensorAddOffset(b, offset)
        return schema.TensorEnd(b)

    def _constant(self, array: np.ndarray, dtype: ir.DType) -> int:
        """The index of a constant."""
        data = pack_constant(array, dtype)
        return self._once((dtype, array.shape, data), lambda: self._new_constant(array, dtype, data))

    def _new_constant(self, array: np.ndarray, dtype: ir.DType, data: bytes) -> int:
        b = self._builder
        shape = self._numbers(array.shape, "<u4")
        b.StartVector(1, len(data), CONSTANT_ALIGNMENT)
        b.head -= len(data)
        b.Bytes[b.head : b.head + len(data)] = data
        vector = b.EndVector()
        schema.ConstantStart(b)
        schema.ConstantAddDtype(b, int(dtype))
        schema.ConstantAddShape(b, shape)
        schema.ConstantAddData(b, vector)
        self._constants.append(schema.ConstantEnd(b))
        return len(self._constants) - 1

    def _op(self, op: ir.Op) -> int:
        b = self._builder
        params = self._params(op)
        name = self._string(op.name)
        inputs, outputs = self._tensor_indices(op.inputs), self._tensor_indices(op.outputs)
        schema.OpStart(b)
        schema.OpAddName(b, name)
        schema.OpAddInputs(b, inputs)
        schema.OpAddOutputs(b, outputs)
        schema.OpAddParamsType(b, getattr(schema.OpParams, op.type))
        schema.OpAddParams(b, params)
        return schema.OpEnd(b)

    def _params(self, table: Any) -> int:
        """A table of the file with its fields: the parameters of an op, or a table inside them."""
        b, name = self._builder, type(table).__name__
        inner = {field.name: self._inner(field, getattr(table, field.name)) for field in codec.fields_of(table)}
        getattr(schema, f"{name}Start")(b)
        for field in codec.fields_of(table):
            add = getattr(schema, f"{name}Add{field.schema_name}")
            value = getattr(table, field.name)
            if field.kind is Kind.STRUCT:
                if field.required or value != field.type():
                    create = getattr(schema, f"Create{field.type.__name__}")
                    add(b, create(b, *(getattr(value, f) for f in codec.STRUCT_FIELDS[field.type])))
            elif field.kind in (Kind.NUMBER, Kind.ENUM):
                add(b, int(value))
            elif field.kind is Kind.REAL:
                add(b, float(value))
            elif inner[field.name] is not None:
                add(b, inner[field.name])
        return getattr(schema, f"{name}End")(b)

    def _inner(self, field: codec.Field, value: Any) -> int | None:
        """What a field refers to, written before its table: a constant's index or a table's offset, if any."""
        if value is None or field.kind in (Kind.STRUCT, Kind.NUMBER, Kind.REAL, Kind.ENUM):
            return None
        if field.kind is Kind.TABLE:
            return self._params(value)
        if field.kind is Kind.TABLES:
            return self._offsets([self._params(table) for table in value])
        return self._constant(value, constant_dtype(value, bits=field.kind is Kind.BITS))
