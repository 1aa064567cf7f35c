"""Layers that move, pick or pool elements and have no weights."""

from __future__ import annotations

from collections.abc import Callable

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor, Window
from larq_clip.converter.keras_importer import fixed_point
from larq_clip.converter.keras_importer.context import Handler, LayerImport, Mean

Pool = Callable[[LayerImport, Tensor, Window, "tuple[int, ...]"], "Tensor | Mean"]


def maximum(call: LayerImport, source: Tensor, window: Window, shape: tuple[int, ...]) -> Tensor:
    op = ir.BitMaxPool2D if source.dtype is DType.BIT else ir.MaxPool2D
    return call.emit(op, source, Tensor(call.name, source.dtype, shape, source.fraction_bits), window=window)


def mean(call: LayerImport, source: Tensor, window: Window, shape: tuple[int, ...]) -> Tensor | Mean:
    if call.layer.compute_dtype == "float64":
        return fixed_point.mean(call, source, window, shape)
    source = call.builder.as_float(source)
    return call.emit(ir.AveragePool2D, source, Tensor(call.name, DType.FLOAT32, shape), window=window)


def local_pool(pool: Pool) -> Handler:
    def handler(call: LayerImport, source: Tensor) -> Tensor | Mean:
        call.require_image(source)
        layer = call.layer
        window, size = call.window(source, layer.pool_size, layer.strides, padding=layer.padding)
        return pool(call, source, window, (*size, source.channels))

    return handler


def global_pool(pool: Pool) -> Handler:
    def handler(call: LayerImport, source: Tensor) -> Tensor | Mean:
        call.require_image(source)
        height, width, channels = source.shape
        shape = (1, 1, channels) if call.layer.keepdims else (channels,)
        return pool(call, source, Window(height, width), shape)

    return handler


def flatten(call: LayerImport, source: Tensor) -> Tensor:
    if len(source.shape) == 1:
        return source
    call.require_image(source)
    return _reshaped(call, source, (source.shape[0] * source.shape[1] * source.channels,))


def reshape(call: LayerImport, source: Tensor) -> Tensor:
    shape = tuple(int(axis) for axis in call.layer.compute_output_shape((1, *source.shape))[1:])
    if len(shape) not in (1, 3):
        raise call.error(f"its target_shape is {call.layer.target_shape}", "accepted are 1 and 3 axes")
    return _reshaped(call, source, shape)


def _reshaped(call: LayerImport, source: Tensor, shape: tuple[int, ...]) -> Tensor:
    if shape == source.shape:
        return source
    # Bits are packed along their last axis: only flattening is undone by the passes, so others reshape numbers.
    if source.dtype is DType.BIT and (len(source.shape), len(shape)) != (3, 1):
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
