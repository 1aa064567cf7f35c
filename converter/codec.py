"""The fields of each op in the file: one table that the writer and the reader share.

A field has the same name in the IR (`pad_value`) and, in capitals, in the code that flatc generates (`PadValue`). The
tables inside an op, a fixed-point epilogue, its steps and its stores, are described in the same way.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from larq_clip.converter import ir
from larq_clip.converter.schema import larq_clip_generated as schema

FORMAT_VERSION = 1
IDENTIFIER = b"LCB1"
MAX_ITEMS = 2048  # tensors, constants and ops, each; as in the runtime
MAX_BYTES = (1 << 31) - 1  # offsets in a FlatBuffer are 31 bits


class Kind(enum.Enum):
    """How a field is stored."""

    STRUCT = enum.auto()  # numbers in the op's own table; where not required, the default of its class is left out
    NUMBER = enum.auto()
    REAL = enum.auto()  # float32
    ENUM = enum.auto()
    BITS = enum.auto()  # index of a constant of bits
    NUMBERS = enum.auto()  # index of a constant of numbers
    TABLE = enum.auto()  # another table
    TABLES = enum.auto()  # a vector of tables


def schema_name(name: str) -> str:
    """The name of a field in the generated code."""
    return "".join(part.capitalize() for part in name.split("_"))


class Field(NamedTuple):
    """A field of an op; `type` is the class of an enum, a struct or a table, `required` says that a constant, struct or
    table must be there."""

    name: str
    kind: Kind
    type: Any = None
    required: bool = False

    @property
    def schema_name(self) -> str:
        """Its name in the generated code."""
        return schema_name(self.name)


_WINDOW = Field("window", Kind.STRUCT, ir.Window, required=True)
_INVERT = Field("invert", Kind.BITS)
_MULTIPLIER = Field("multiplier", Kind.NUMBERS)
_OFFSET = Field("offset", Kind.NUMBERS)
_ACTIVATION = Field("activation", Kind.STRUCT, ir.Activation)
_GROUPS = Field("groups", Kind.NUMBER)
_FIXED_POINT = Field("fixed_point", Kind.TABLE, ir.FixedPoint)

TABLE_FIELDS: dict[type, tuple[Field, ...]] = {
    ir.FixedPoint: (Field("steps", Kind.TABLES, ir.Step), Field("stores", Kind.TABLES, ir.Store)),
    ir.Step: (
        Field("kind", Kind.ENUM, ir.StepKind),
        _MULTIPLIER,
        _OFFSET,
        Field("operand", Kind.NUMBER),
        Field("shift", Kind.NUMBERS),
        Field("operand_shift", Kind.NUMBERS),
    ),
    ir.Store: (Field("shift", Kind.NUMBERS), Field("thresholds", Kind.NUMBERS), _INVERT),
}

OP_FIELDS: dict[type[ir.Op], tuple[Field, ...]] = {
    ir.BinaryConv2D: (
        _WINDOW,
        _GROUPS,
        Field("pad_value", Kind.NUMBER),
        Field("weights", Kind.BITS, required=True),
        Field("clip_limit", Kind.NUMBER),
        Field("step_log2", Kind.NUMBER),
        Field("epilogue", Kind.ENUM, ir.Epilogue),
        Field("thresholds", Kind.NUMBERS),
        _INVERT,
        _MULTIPLIER,
        _OFFSET,
        _FIXED_POINT,
    ),
    ir.BitMaxPool2D: (_WINDOW, _INVERT),
    ir.Bitpack: (Field("thresholds", Kind.NUMBERS), _INVERT),
    ir.Unpack: (),
    ir.Conv2D: (
        _WINDOW,
        Field("weights", Kind.NUMBERS, required=True),
        Field("bias", Kind.NUMBERS),
        _ACTIVATION,
        _GROUPS,
    ),
    ir.MaxPool2D: (_WINDOW,),
    ir.AveragePool2D: (_WINDOW,),
    ir.Affine: (_MULTIPLIER, _OFFSET, _ACTIVATION),
    ir.Softmax: (),
    ir.Reshape: (),
    ir.Int8Conv2D: (
        _WINDOW,
        _GROUPS,
        Field("weights", Kind.NUMBERS, required=True),
        Field("bias", Kind.NUMBERS),
        _FIXED_POINT._replace(required=True),
    ),
    ir.Elementwise: (_FIXED_POINT._replace(required=True),),
    ir.Quantize: (),
    ir.Concatenate: (),
    ir.Arithmetic: (Field("kind", Kind.ENUM, ir.ArithmeticKind),),
    ir.PReLU: (Field("slope", Kind.NUMBERS, required=True),),
    ir.Function: (Field("kind", Kind.ENUM, ir.FunctionKind),),
    ir.Slice: (
        Field("begin_h", Kind.NUMBER),
        Field("begin_w", Kind.NUMBER),
        Field("begin_c", Kind.NUMBER),
        Field("value", Kind.REAL),
    ),
    ir.DepthToSpace: (Field("block_h", Kind.NUMBER), Field("block_w", Kind.NUMBER)),
}

OP_BY_TAG: dict[int, type[ir.Op]] = {getattr(schema.OpParams, op.__name__): op for op in OP_FIELDS}

STRUCT_FIELDS: dict[type, tuple[str, ...]] = {
    ir.Window: (
        "kernel_h",
        "kernel_w",
        "stride_h",
        "stride_w",
        "dilation_h",
        "dilation_w",
        "pad_top",
        "pad_left",
    ),
    ir.Activation: ("low", "high"),
}


def fields_of(thing: Any) -> tuple[Field, ...]:
    """The fields of an op, or of a table inside one."""
    return TABLE_FIELDS[type(thing)] if type(thing) in TABLE_FIELDS else OP_FIELDS[type(thing)]


def constants_of(thing: Any) -> list[tuple[Field, Any]]:
    """The constants that an op has, those of its tables included, with their fields."""
    found: list[tuple[Field, Any]] = []
    for field in fields_of(thing):
        value = getattr(thing, field.name)
        if value is None:
            continue
        if field.kind in (Kind.BITS, Kind.NUMBERS):
            found.append((field, value))
        elif field.kind is Kind.TABLE:
            found += constants_of(value)
        elif field.kind is Kind.TABLES:
            found += [constant for table in value for constant in constants_of(table)]
    return found
