"""The intermediate representation: immutable graphs of small ops, each with a NumPy evaluator.

One set of ops serves all stages. Most of them are exactly those of the file (`larq_clip.fbs`); an imported graph also
holds `BatchNorm`, `AccumulatorClip`, `SelectChannels`, binary convolutions that leave their raw accumulator,
and exact tensors, int64, of which fixed-point models consist between those that they store; the passes remove them.
"""

from __future__ import annotations

from larq_clip.converter.ir.fixed_point import (
    FixedPoint,
    Range,
    Step,
    StepKind,
    Store,
    add_step,
    affine_step,
    clip_steps,
    merged,
    shift_store,
)
from larq_clip.converter.ir.float_ops import Arithmetic, ArithmeticKind, Function, FunctionKind, PReLU, Softmax
from larq_clip.converter.ir.graph import Graph, GraphError, Replacement, evaluate, redirect, unused_name
from larq_clip.converter.ir.integer_ops import Elementwise, Int8Conv2D, Quantize, to_float
from larq_clip.converter.ir.layout_ops import Concatenate, DepthToSpace, SelectChannels, Slice
from larq_clip.converter.ir.ops import (
    AccumulatorClip,
    Activation,
    Affine,
    AveragePool2D,
    BatchNorm,
    BinaryConv2D,
    BitMaxPool2D,
    Bitpack,
    Conv2D,
    Epilogue,
    MaxPool2D,
    Op,
    Reshape,
    UnaryOp,
    Unpack,
    join_names,
)
from larq_clip.converter.ir.ranges import RangeError, ranges, start
from larq_clip.converter.ir.tensors import (
    INTEGERS,
    STORED,
    DType,
    Tensor,
    Window,
    image_shape,
    shortest,
    values,
)

__all__ = [
    "INTEGERS",
    "STORED",
    "AccumulatorClip",
    "Activation",
    "Affine",
    "Arithmetic",
    "ArithmeticKind",
    "AveragePool2D",
    "BatchNorm",
    "BinaryConv2D",
    "BitMaxPool2D",
    "Bitpack",
    "Concatenate",
    "Conv2D",
    "DType",
    "DepthToSpace",
    "Elementwise",
    "Epilogue",
    "FixedPoint",
    "Function",
    "FunctionKind",
    "Graph",
    "GraphError",
    "Int8Conv2D",
    "MaxPool2D",
    "Op",
    "PReLU",
    "Quantize",
    "Range",
    "RangeError",
    "Replacement",
    "Reshape",
    "SelectChannels",
    "Slice",
    "Softmax",
    "Step",
    "StepKind",
    "Store",
    "Tensor",
    "UnaryOp",
    "Unpack",
    "Window",
    "add_step",
    "affine_step",
    "clip_steps",
    "evaluate",
    "image_shape",
    "join_names",
    "merged",
    "ranges",
    "redirect",
    "shift_store",
    "shortest",
    "start",
    "to_float",
    "unused_name",
    "values",
]
