"""Layers with several inputs, and the moves of channels that undo them: in float32, or exact in fixed-point models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from larq_clip.converter import ir
from larq_clip.converter.ir import ArithmeticKind, DType, Tensor, image_shape
from larq_clip.converter.keras_importer.context import Join, LayerImport

MOST_RUNS = 8  # of neighbouring channels that are sliced one by one


def fold(kind: ArithmeticKind) -> Join:
    """The handler of a layer that adds, multiplies or compares its inputs one after the other."""
    return lambda call, sources: arithmetic(call, kind, sources)


def subtract(call: LayerImport, sources: list[Tensor]) -> Tensor:
    """The first input minus the second."""
    return arithmetic(call, ArithmeticKind.SUBTRACT, sources)


def average(call: LayerImport, sources: list[Tensor]) -> Tensor:
    """The sum, divided by the number of inputs, which must be a power of two so that it is a multiplication."""
    count = len(sources)
    if count & (count - 1):
        raise call.error(f"it averages {count} tensors", "average 2, 4 or 8, or use Add and scale the result")
    total = arithmetic(call, ArithmeticKind.ADD, sources, f"{call.name}:sum")
    factor = np.full(total.channels, 1 / count, np.float32)
    return call.emit(ir.Affine, total, Tensor(call.name, DType.FLOAT32, total.shape), multiplier=factor)


def arithmetic(call: LayerImport, kind: ArithmeticKind, sources: Sequence[Tensor], output: str | None = None) -> Tensor:
    """The first input `kind` the second, that `kind` the third, and so on, as Keras computes.

    Keras takes ``(channels,)`` beside an image for one pixel of it, as the IR does.
    """
    output = output or call.name
    if len(sources) < 2:
        raise call.error(f"it has {len(sources)} inputs", "give it two or more")
    first, *others = (call.builder.as_float(source) for source in sources)
    for place, other in enumerate(others):
        name = output if place == len(others) - 1 else f"{output}:{place}"
        shape = np.broadcast_shapes(image_shape(first.shape), image_shape(other.shape))
        rank = max(len(first.shape), len(other.shape))
        result = Tensor(name, DType.FLOAT32, tuple(int(axis) for axis in shape[3 - rank :]))
        first = call.emit_many(ir.Arithmetic, [first, other], result, kind=kind)
    return first


def concatenate(call: LayerImport, sources: list[Tensor]) -> Tensor:
    """The inputs' channels one after the other."""
    axes = len(sources[0].shape)
    if call.layer.axis not in (-1, axes):
        raise call.error(f"its axis is {call.layer.axis}", f"join the channels, axis=-1 or axis={axes}")
    return concatenated(call, sources)


def concatenated(call: LayerImport, sources: Sequence[Tensor], output: str | None = None) -> Tensor:
    """The channels of tensors one after the other, as float32."""
    if len(sources) < 2:
        raise call.error(f"it has {len(sources)} inputs", "give it two or more")
    if len({source.shape[:-1] for source in sources}) > 1:
        raise call.error(f"its inputs have the shapes {[source.shape for source in sources]}", "give them equal sizes")
    shape = (*sources[0].shape[:-1], sum(source.channels for source in sources))
    floats = [call.builder.as_float(source) for source in sources]
    return call.emit_many(ir.Concatenate, floats, Tensor(output or call.name, DType.FLOAT32, shape))


def take_channels(call: LayerImport, source: Tensor, channels: list[int], output: str) -> Tensor:
    """The channels of a tensor by their numbers, as float32; itself where they are all in order."""
    if channels == list(range(source.channels)):
        return source
    source = call.builder.as_float(source)
    starts = [i for i in range(len(channels)) if i == 0 or channels[i] != channels[i - 1] + 1]
    runs = [channels[i:j] for i, j in zip(starts, [*starts[1:], len(channels)])]
    result = Tensor(output, DType.FLOAT32, (*source.shape[:-1], len(channels)))
    if len(runs) == 1:
        return call.emit(ir.Slice, source, result, begin_c=channels[0])
    if len(runs) > MOST_RUNS:  # a sum of products with 0, and of one with 1, is that one
        weights = np.zeros((1, 1, source.channels, len(channels)), np.float32)
        weights[0, 0, channels, np.arange(len(channels))] = 1
        return call.emit(ir.Conv2D, source, result, window=ir.Window(), weights=weights)
    parts = [take_channels(call, source, run, f"{output}:run{place}") for place, run in enumerate(runs)]
    return concatenated(call, parts, output)


def padded_sum(call: LayerImport, sources: Sequence[Tensor], before: int) -> Tensor:
    """The sum with a narrower tensor, `before` channels of zeros in front of that."""
    wide, narrow = sorted((call.builder.as_float(source) for source in sources), key=lambda t: -t.channels)
    if narrow.channels < wide.channels:
        widened = Tensor(f"{call.name}:widened", DType.FLOAT32, (*narrow.shape[:-1], wide.channels))
        narrow = call.emit(ir.Slice, narrow, widened, begin_c=-before)
    return arithmetic(call, ArithmeticKind.ADD, [wide, narrow])


__all__ = [
    "arithmetic",
    "average",
    "concatenate",
    "concatenated",
    "fold",
    "padded_sum",
    "subtract",
    "take_channels",
]
