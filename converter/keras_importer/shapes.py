"""Layers that move, pick or pool elements and have no weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor, Window
from larq_clip.converter.keras_importer import fixed_point
from larq_clip.converter.keras_importer.context import Handler, LayerImport, Source

Pool = Callable[[LayerImport, Tensor, Window, "tuple[int, ...]"], Source]


def maximum(call: LayerImport, source: Tensor, window: Window, shape: tuple[int, ...]) -> Tensor:
    op = ir.BitMaxPool2D if source.dtype is DType.BIT else ir.MaxPool2D
    return call.emit(op, source, Tensor(call.name, source.dtype, shape, source.fraction_bits), window=window)


def mean(call: LayerImport, source: Tensor, window: Window, shape: tuple[int, ...]) -> Source:
    if call.layer.compute_dtype == "float64":
        return fixed_point.mean(call, source, window, shape)
    source = call.builder.as_float(source)
    return call.emit(ir.AveragePool2D, source, Tensor(call.name, DType.FLOAT32, shape), window=window)


def local_pool(pool: Pool) -> Handler:
    def handler(call: LayerImport, source: Tensor) -> Source:
        call.require_image(source)
        layer = call.layer
        window, size = call.window(source, layer.pool_size, layer.strides, padding=layer.padding)
        return pool(call, source, window, (*size, source.channels))

    return handler


def local_pool_1d(pool: Pool) -> Handler:
    def handler(call: LayerImport, source: Tensor) -> Source:
        call.require_sequence(source)
        layer = call.layer
        size, strides = ((1, int(np.squeeze(axis))) for axis in (layer.pool_size, layer.strides))
        window, (_, length) = call.window(source, size, strides, padding=layer.padding)
        return pool(call, source, window, (length, source.channels))

    return handler


def global_pool(pool: Pool) -> Handler:
    def handler(call: LayerImport, source: Tensor) -> Source:
        call.require_image(source)
        height, width, channels = source.shape
        shape = (1, 1, channels) if call.layer.keepdims else (channels,)
        return pool(call, source, Window(height, width), shape)

    return handler


def global_pool_1d(pool: Pool) -> Handler:
    def handler(call: LayerImport, source: Tensor) -> Source:
        call.require_sequence(source)
        length, channels = source.shape
        return pool(call, source, Window(1, length), (1, channels) if call.layer.keepdims else (channels,))

    return handler


def zero_padding(call: LayerImport, source: Tensor) -> Tensor:
    """Zeros around the image; a pass hands them on to the convolution behind where that is possible."""
    call.require_image(source)
    (top, below), (left, right) = call.layer.padding
    height, width, channels = source.shape
    return region(call, source, (top + height + below, left + width + right, channels), -top, -left)


def zero_padding_1d(call: LayerImport, source: Tensor) -> Tensor:
    call.require_sequence(source)
    before, after = call.layer.padding
    length, channels = source.shape
    return region(call, source, (before + length + after, channels), 0, -before)


def cropping(call: LayerImport, source: Tensor) -> Tensor:
    call.require_image(source)
    (top, below), (left, right) = call.layer.cropping
    height, width, channels = source.shape
    return region(call, source, (height - top - below, width - left - right, channels), top, left)


def cropping_1d(call: LayerImport, source: Tensor) -> Tensor:
    call.require_sequence(source)
    before, after = call.layer.cropping
    length, channels = source.shape
    return region(call, source, (length - before - after, channels), 0, before)


def region(
    call: LayerImport,
    source: Tensor,
    shape: tuple[int, ...],
    begin_h: int = 0,
    begin_w: int = 0,
    begin_c: int = 0,
    *,
    value: float = 0.0,
    output: str | None = None,
    always: bool = False,
) -> Tensor:
    """A region of an image, `value` where it reaches beyond; the image itself where it is all of it, save `always`."""
    if min(shape) < 1:
        raise call.error(f"its output would have the shape {shape}", "leave at least one pixel")
    if not always and shape == source.shape and (begin_h, begin_w, begin_c) == (0, 0, 0):
        return source
    source = source if source.dtype is not DType.BIT else call.builder.as_float(source)
    result = source.reshaped(output or call.name, shape)
    return call.emit(ir.Slice, source, result, begin_h=begin_h, begin_w=begin_w, begin_c=begin_c, value=value)


def upsampling(call: LayerImport, source: Tensor) -> Tensor:
    """Every pixel repeated: copies beside each other as channels, which become pixels."""
    call.require_image(source)
    call.require("interpolation", "nearest")
    rows, columns = call.layer.size
    height, width, channels = source.shape
    if rows == columns == 1:
        return source
    source = call.builder.as_float(source)
    copies = Tensor(f"{call.name}:copies", DType.FLOAT32, (height, width, rows * columns * channels))
    joined = call.emit_many(ir.Concatenate, [source] * (rows * columns), copies)
    result = Tensor(call.name, DType.FLOAT32, (height * rows, width * columns, channels))
    return call.emit(ir.DepthToSpace, joined, result, block_h=rows, block_w=columns)


def flatten(call: LayerImport, source: Tensor) -> Tensor:
    if len(source.shape) == 1:
        return source
    if getattr(call.layer, "data_format", "channels_last") != "channels_last":
        raise call.error("its data_format is 'channels_first'", "use 'channels_last'")
    return reshaped(call, source, (int(np.prod(source.shape)),))


def reshape(call: LayerImport, source: Tensor) -> Tensor:
    shape = tuple(int(axis) for axis in call.layer.compute_output_shape((1, *source.shape))[1:])
    if len(shape) not in (1, 2, 3):
        raise call.error(f"its target_shape is {call.layer.target_shape}", "accepted are 1 to 3 axes")
    return reshaped(call, source, shape)


def reshaped(call: LayerImport, source: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same elements in the same order under another shape."""
    if shape == source.shape:
        return source
    # Bits are packed along their last axis: only flattening is undone by the passes, so others reshape numbers.
    if source.dtype is DType.BIT and (len(source.shape), len(shape)) not in ((3, 1), (2, 1)):
        source = call.builder.as_float(source)
    if len(source.fraction_bits) > 1 and shape[-1] % source.channels:
        raise call.error(
            f"its {source.channels} input channels have fraction bits each, and its {shape[-1]} do not repeat them",
            "keep the last axis, flatten, or quantize with granularity='tensor'",
        )
    return call.emit(ir.Reshape, source, source.reshaped(call.name, shape))


def nothing(call: LayerImport, source: Tensor) -> Tensor:
    """The input: the layer does nothing in inference."""
    return source
