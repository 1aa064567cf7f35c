"""The intermediate representation: immutable graphs of small ops, each with a NumPy evaluator.

One set of ops serves all stages. Most of them are exactly those of the file (`larq_clip.fbs`); an imported graph also
holds `BatchNorm`, `AccumulatorClip` and binary convolutions that leave their raw accumulator, which the passes remove.
"""

from __future__ import annotations

from larq_clip.converter.ir.graph import Graph, GraphError, Replacement, evaluate, redirect, unused_name
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
    Softmax,
    Unpack,
    join_names,
)
from larq_clip.converter.ir.tensors import INTEGERS, DType, Tensor, Window, image_shape, values

__all__ = [
    "INTEGERS",
    "AccumulatorClip",
    "Activation",
    "Affine",
    "AveragePool2D",
    "BatchNorm",
    "BinaryConv2D",
    "BitMaxPool2D",
    "Bitpack",
    "Conv2D",
    "DType",
    "Epilogue",
    "Graph",
    "GraphError",
    "MaxPool2D",
    "Op",
    "Replacement",
    "Reshape",
    "Softmax",
    "Tensor",
    "Unpack",
    "Window",
    "evaluate",
    "image_shape",
    "join_names",
    "redirect",
    "unused_name",
    "values",
]
