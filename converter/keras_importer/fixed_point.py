"""Handlers of the layers of fixed-point models: exact integers, as `larq_clip.fixed_point` computes them.

A tensor that Keras computes in float64 is imported as int64 with fraction bits, and rounded nowhere. Three kinds of
tensors stand for numbers in memory: int8, int16, float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larq_clip._graph import FIXED_POINT
from larq_clip._identify import BOUND_FRACTION_BITS
from larq_clip._keras import keras
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Step, StepKind, Tensor, Window, image_shape
from larq_clip.converter.keras_importer.context import LayerImport, Mean
from larq_clip.layers import (
    Int8Dense,
    Int8DepthwiseConv2D,
)

STORED_TYPE = {8: DType.INT8, 16: DType.INT16}
Activate = Callable[[LayerImport, Any], list[tuple[str, Callable[[Tensor, str], Tensor]]]]


def is_exact(call: LayerImport, source: Tensor) -> bool:
    """Whether a layer that keeps or picks numbers computes on integers: they are stored, or its float64 holds them."""
    return source.dtype is DType.INT64 or (call.builder.fixed_point and source.dtype in ir.INTEGERS)


def elementwise(call: LayerImport, sources: Sequence[Tensor], result: Tensor, **fixed_point: Any) -> Tensor:
    """Emit an Elementwise op with one output."""
    return call.emit_many(ir.Elementwise, sources, result, fixed_point=ir.FixedPoint(**fixed_point))


def relu(call: LayerImport, source: Tensor, output: str) -> Tensor:
    """max(y, 0): of a stored tensor stored, else exact."""
    dtype = source.dtype if source.dtype in ir.STORED else DType.INT64
    result = Tensor(output, dtype, source.shape, source.fraction_bits)
    return elementwise(call, [source], result, steps=(Step(StepKind.RELU),))


def clip(call: LayerImport, source: Tensor, low: float, high: float, output: str) -> Tensor:
    """clip(y, low, high) of exact integers, for bounds m 2^-8: with 8 fraction bits at least both are integers."""
    given = source.scale_bits
    bits = np.maximum(given, BOUND_FRACTION_BITS)
    with call.within_limits():
        finer = ir.affine_step(_shifted(np.ones(source.channels, np.int64), bits - given))
        ends = [
            _shifted(np.full(source.channels, int(end * 2**BOUND_FRACTION_BITS)), bits - BOUND_FRACTION_BITS)
            for end in (low, high)
        ]
    result = Tensor(output, DType.INT64, source.shape, ir.shortest(bits))
    return elementwise(call, [source], result, steps=finer + ir.clip_steps(*ends))


def stored(
    call: LayerImport, source: Tensor | Mean, bits: int, fraction_bits: NDArray[np.integer], output: str
) -> Tensor:
    """A tensor rounded half up to int8 or int16 with these fraction bits."""
    tensor = source.source if isinstance(source, Mean) else source
    wanted = np.broadcast_to(np.asarray(fraction_bits, np.int64), (tensor.channels,))
    result = Tensor(output, STORED_TYPE[bits], source.shape, ir.shortest(wanted))
    if isinstance(source, Mean):
        return call.builder.emit(ir.AveragePool2D, source.name, tensor, result, window=source.window)
    if source.dtype in (DType.BIT, DType.FLOAT32):
        return call.emit(ir.Quantize, call.builder.as_float(source), result)
    with call.within_limits():
        store = ir.shift_store(source.scale_bits - wanted)
    return elementwise(call, [source], result, stores=(store,))


def _require_quantized(call: LayerImport) -> None:
    if not call.layer.quantized:
        raise call.error(
            "it is not quantized, so that it computes in floating point",
            "call its method quantize(), or make the model with larq_clip.models.quantize_model",
        )


def _require_exact(call: LayerImport, source: Tensor) -> None:
    if source.dtype not in ir.INTEGERS:
        raise call.error(
            f"its input {source.name!r} is {source.dtype.name.lower()}, not fixed-point",
            "store it with larq_clip.layers.StorageQuantizer first",
        )


def _channel_bits(call: LayerImport, fraction_bits: Any, channels: int) -> NDArray[np.int64]:
    bits = np.asarray(fraction_bits, np.int64)
    if bits.ndim and bits.size != channels:
        raise call.error(f"it has {bits.size} fraction bits, but {channels} channels", "quantize it anew")
    return np.broadcast_to(bits, (channels,))


def storage_quantizer(call: LayerImport, source: Tensor | Mean) -> Tensor:
    _require_quantized(call)
    channels = source.shape[-1]
    return stored(call, source, call.layer.bits, _channel_bits(call, call.layer.fraction_bits, channels), call.name)


def batch_norm(call: LayerImport, source: Tensor, as_keras: Callable[[LayerImport, Tensor, Any], Tensor]) -> Tensor:
    """y = s_q x + t_q 2^f with fraction bits F + f, f those of x; s_q x 2^-f + t_q with F where f is negative.

    Behind float32, a binary layer with a bias, it is as a batch norm of Keras with s and t for gamma and beta.
    """
    _require_quantized(call)
    axes = tuple(np.atleast_1d(call.layer.axis).tolist())
    if axes != (len(source.shape),):
        raise call.error(f"its axis is {axes} of {len(source.shape) + 1}", "normalize the last axis, axis=-1")
    integers = call.layer.integers()
    own = _channel_bits(call, integers.fraction_bits, source.channels)
    if source.dtype not in ir.INTEGERS:
        return as_keras(call, source, integers)
    given = source.scale_bits
    result = Tensor(call.name, DType.INT64, source.shape, ir.shortest(own + np.maximum(given, 0)))
    with call.within_limits():
        multiplier = _shifted(integers.multiplier, np.maximum(-given, 0))
        offset = _shifted(integers.offset, np.maximum(given, 0))
        steps = ir.affine_step(multiplier, offset)
    return elementwise(call, [source], result, steps=steps)


def _shifted(integers: NDArray[np.integer], shift: NDArray[np.int64]) -> NDArray[np.int64]:
    """integers 2^shift as int64.

    Raises:
        OverflowError: where one does not fit 62 bits.
    """
    exact = [int(q) << int(s) for q, s in zip(integers, shift, strict=True)]
    if max(map(abs, exact)) > 1 << 62:
        raise OverflowError("a constant of it does not fit 62 bits")
    return np.asarray(exact, np.int64)


def add(call: LayerImport, sources: Sequence[Tensor]) -> Tensor:
    """The exact sum, its fraction bits the largest of the terms'; then the store, if the layer has bits."""
    for source in sources:
        _require_exact(call, source)
    # The one term that is not stored comes first: from it the steps start.
    terms = sorted(sources, key=lambda tensor: tensor.dtype in ir.STORED)
    steps: list[Step] = []
    now = terms[0].scale_bits
    for place, term in enumerate(terms[1:], 1):
        common = np.maximum(now, term.scale_bits)
        with call.within_limits():
            steps.append(ir.add_step(place, common - now, common - term.scale_bits))
        now = common
    name = call.name if call.layer.bits is None else f"{call.name}:exact"
    result = Tensor(name, DType.INT64, terms[0].shape, ir.shortest(now))
    return _joined(call, elementwise(call, terms, result, steps=tuple(steps)))


def concatenate(call: LayerImport, sources: Sequence[Tensor]) -> Tensor:
    """The channels of stored tensors one after the other."""
    for source in sources:
        _require_exact(call, source)
        if source.dtype not in ir.STORED:
            raise call.error(
                f"its input {source.name!r} is an exact sum or product that no layer stores",
                "store it with larq_clip.layers.StorageQuantizer first",
            )
    if call.layer.axis not in (-1, len(sources[0].shape)):
        raise call.error(f"its axis is {call.layer.axis}", "join the channels, axis=-1")
    dtype = max(source.dtype for source in sources)
    bits = ir.shortest(np.concatenate([source.scale_bits for source in sources]))
    shape = (*sources[0].shape[:-1], sum(source.channels for source in sources))
    name = call.name if call.layer.bits is None else f"{call.name}:exact"
    return _joined(call, call.emit_many(ir.Concatenate, sources, Tensor(name, dtype, shape, bits)))


def _joined(call: LayerImport, joined: Tensor) -> Tensor:
    if call.layer.bits is None:
        return joined
    _require_quantized(call)
    bits = _channel_bits(call, call.layer.fraction_bits, joined.channels)
    return stored(call, joined, call.layer.bits, bits, call.name)


def kernel_scale(call: LayerImport) -> Callable[[Tensor, str], Tensor]:
    """The step y = s_q q behind a clip: with F fraction bits of s and those of q, y has F + f."""
    integers = call.layer.scale_integers()
    own = _channel_bits(call, call.layer.scale_fraction_bits, integers.size)

    def step(x: Tensor, output: str) -> Tensor:
        result = Tensor(output, DType.INT64, x.shape, ir.shortest(own + x.scale_bits))
        return elementwise(call, [x], result, steps=ir.affine_step(integers))

    return step


def int8_layer(call: LayerImport, source: Tensor, activate: Activate) -> Tensor:
    """y = m[c] (sum of w x + bias), with the fraction bits of each output channel's step; then the activation."""
    _require_quantized(call)
    layer = call.layer
    kernel, bias = layer.integers()
    window, size, groups, weights = Window(), image_shape(source.shape)[:2], 1, kernel.weights
    if isinstance(layer, Int8Dense):
        weights = weights[None, None]
    else:
        call.require_image(source)
        kernel_size = weights.shape[:2]
        window, size = call.window(source, kernel_size, layer.strides, layer.dilation_rate, layer.padding)
        groups = source.channels if isinstance(layer, Int8DepthwiseConv2D) else layer.groups
        if isinstance(layer, Int8DepthwiseConv2D):
            weights = weights.reshape(*kernel_size, 1, -1)
    channels = weights.shape[-1]
    shape = (channels,) if len(source.shape) == 1 else (*size, channels)
    wanted = _channel_bits(call, layer.input_fraction_bits, source.channels)
    if not source.has_format(DType.INT8, wanted):
        source = stored(call, source, 8, wanted, f"{call.name}:input")
    result_bits = ir.shortest(np.broadcast_to(kernel.fraction_bits.ravel(), (channels,)))
    with call.within_limits():
        steps = ir.affine_step(np.broadcast_to(kernel.mantissa.ravel(), (channels,)))

    def convolve(x: Tensor, output: str) -> Tensor:
        return call.emit(
            ir.Int8Conv2D,
            x,
            Tensor(output, DType.INT64, shape, result_bits),
            window=window,
            weights=np.ascontiguousarray(weights.transpose(3, 0, 1, 2)),
            groups=groups,
            bias=None if bias is None or not np.any(bias) else bias,
            fixed_point=ir.FixedPoint(steps),
        )

    return call.run(source, [("linear", convolve), *activate(call, layer.activation)])


def take_channels(call: LayerImport, source: Tensor) -> Tensor:
    """The channels that the layer names."""
    return _selected(call, source, np.asarray(call.layer.channels, np.int64))


def pad_channels(call: LayerImport, source: Tensor) -> Tensor:
    """The channels between channels of zeros."""
    zeros = [np.full(count, -1, np.int64) for count in (call.layer.before, call.layer.after)]
    return _selected(call, source, np.concatenate([zeros[0], np.arange(source.channels), zeros[1]]))


def _selected(call: LayerImport, source: Tensor, channels: NDArray[np.int64]) -> Tensor:
    if source.dtype is not DType.INT8:
        raise call.error(
            f"its input {source.name!r} is {source.dtype.name.lower()}; only tensors stored in 8 bits have their "
            "channels moved",
            "quantize the model with residual_bits=8 and clips of 8 bits, or put a "
            "larq_clip.layers.StorageQuantizer(8) in front of it",
        )
    if np.array_equal(channels, np.arange(source.channels)):
        return source
    # Zeros have any format: the coarsest makes no sum finer.
    bits = np.where(channels < 0, source.scale_bits.min(), source.scale_bits[channels])
    result = Tensor(call.name, DType.INT8, (*source.shape[:-1], channels.size), ir.shortest(bits))
    return call.emit(ir.SelectChannels, source, result, channels=channels)


def mean(call: LayerImport, source: Tensor, window: Window, shape: tuple[int, ...]) -> Mean:
    """The mean of integers in float64, which its reader stores: only then is it a tensor."""
    return Mean(call.name, source, window, shape)


def is_fixed_point(model: keras.Model) -> bool:
    """Whether a model has layers of fixed point: then clipped accumulators stay integers."""
    return any(isinstance(layer, FIXED_POINT) for layer in model.layers)
