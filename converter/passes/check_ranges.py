"""Prove that no integer of the model overflows."""

from __future__ import annotations

from larq_clip.converter import ir
from larq_clip.converter.ir import Graph
from larq_clip.errors import ConversionError


def check_ranges(graph: Graph) -> Graph:
    """The same graph, if no exact integer can leave ±2^62 and no sum of an int8 convolution int32.

    The proof is interval arithmetic from the ranges of the stored tensors, step by step, as in the runtime. A binary
    accumulator lies within ±K, or the clip's limit.

    Raises:
        ConversionError: names the layer whose integers may overflow.
    """
    try:
        ir.ranges(graph)
    except ir.RangeError as error:
        raise ConversionError(
            f"{error}. The formats of the model are too fine for what they hold; calibrate it anew on data like that "
            "of its training, or quantize it with granularity='tensor'"
        ) from None
    return graph
