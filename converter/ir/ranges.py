"""The integers that each tensor of a graph can hold, channel by channel, whatever the model's input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from larq_clip.converter.ir.fixed_point import FixedPoint, Range
from larq_clip.converter.ir.graph import Graph
from larq_clip.converter.ir.integer_ops import Int8Conv2D
from larq_clip.converter.ir.layout_ops import DepthToSpace, Slice
from larq_clip.converter.ir.ops import AccumulatorClip, BinaryConv2D, MaxPool2D, Op, Reshape
from larq_clip.converter.ir.tensors import INTEGERS, STORED

INT32_LIMIT = (1 << 31) - 1


class RangeError(ValueError):
    """Integers that may leave what they are computed in; names the op and says how far they go."""


def start(graph: Graph, op: Op, found: Mapping[str, Range]) -> Range:
    """The range of the integer that an op's steps start from.

    Raises:
        RangeError: where a sum of an int8 convolution may leave int32.
    """
    if isinstance(op, BinaryConv2D):
        limit = op.clip_limit or op.k
        return Range.of(-limit, limit, op.out_channels)
    if isinstance(op, Int8Conv2D):
        largest = op.largest_sum
        if largest.max() > INT32_LIMIT:
            raise RangeError(f"op {op.name!r}: its sums reach {largest.max()}; accepted are sums within int32")
        return Range.of(-largest, largest, len(largest))
    return found[op.input]


def ranges(graph: Graph) -> dict[str, Range]:
    """The range of every integer tensor.

    Raises:
        RangeError: names the op whose integers may leave +-2^62, or int32 in the sums of an int8 convolution.
    """
    found: dict[str, Range] = {}
    for name in graph.inputs:
        if graph.tensors[name].dtype in STORED:
            found[name] = Range.of_type(graph.tensors[name])
    for op in graph.ops:
        exact: Range | None = None
        steps: FixedPoint | None = getattr(op, "fixed_point", None)
        if steps is not None:
            try:
                exact = steps.ranges(start(graph, op, found), [found.get(n) for n in op.inputs])
            except OverflowError as error:
                raise RangeError(f"op {op.name!r}: {error}") from None
        elif isinstance(op, AccumulatorClip):
            exact = Range.of(-op.limit, op.limit, graph.result(op).channels)
        elif isinstance(op, (MaxPool2D, Reshape, Slice, DepthToSpace)) and op.input in found:
            exact = _moved(graph, op, found[op.input])
        elif isinstance(op, BinaryConv2D):
            exact = start(graph, op, found)
        for tensor in graph.results(op):
            if tensor.dtype in STORED and not isinstance(op, AccumulatorClip):
                found[tensor.name] = Range.of_type(tensor)
            elif tensor.dtype in INTEGERS and exact is not None:
                found[tensor.name] = exact
    return found


def _moved(graph: Graph, op: Op, source: Range) -> Range:
    """The range behind an op that moves elements, or puts a value around them."""
    channels = graph.result(op).channels
    low, high = source
    if isinstance(op, Slice):
        if op.fills(graph.source(op), graph.result(op)):
            low, high = np.minimum(low, int(op.value)), np.maximum(high, int(op.value))
        if op.begin_c == 0 and channels == len(low):
            return Range(low, high)
    if channels % len(low) or isinstance(op, Slice):
        low, high = np.full(1, min(low), object), np.full(1, max(high), object)
    low, high = (np.tile(end, channels // len(end)) for end in (low, high))
    return Range(low, high)
