"""One handler for each type of Keras layer: appends to the graph what the layer computes in inference.

Types are matched exactly, since a subclass may compute anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip._binary import produces_signs
from larq_clip._graph import FIXED_POINT
from larq_clip._keras import keras, lq, tf
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor, Window, image_shape
from larq_clip.converter.keras_importer import fixed_point
from larq_clip.converter.keras_importer.context import LayerImport, Mean, Step
from larq_clip.converter.keras_importer.quantizers import (
    PROBES,
    accumulator_clip,
    is_signs,
    kernel_signs,
    quantized_input,
    signs,
)
from larq_clip.layers import (
    Add,
    Concatenate,
    FixedPointBatchNormalization,
    Int8Conv2D,
    Int8Dense,
    Int8DepthwiseConv2D,
    PadChannels,
    QuantConv2D,
    QuantDense,
    StorageQuantizer,
    TakeChannels,
)

Handler = Callable[[LayerImport, Tensor], "Tensor | Mean"]
Join = Callable[[LayerImport, "list[Tensor]"], Tensor]
INT8_BITS = 8


# ---- Layers with weights --------------------------------------------------------------------------------------------


def _conv2d(call: LayerImport, source: Tensor) -> Tensor:
    call.require_image(source)
    layer = call.layer
    window, size = call.window(source, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
    return _weighted(call, source, window, size, groups=layer.groups)


def _dense(call: LayerImport, source: Tensor) -> Tensor:
    return _weighted(call, source, Window(), image_shape(source.shape)[:2], groups=1)


def _weighted(call: LayerImport, source: Tensor, window: Window, size: tuple[int, int], groups: int) -> Tensor:
    """Kernel, clip, scale of the kernel, bias, activation. Binary where the input and the kernel are -1 and +1."""
    layer = call.layer
    kernel, scale = kernel_signs(call)
    kernel = kernel.reshape(window.kernel_h, window.kernel_w, *kernel.shape[-2:])
    channels = kernel.shape[-1]
    shape = (channels,) if len(source.shape) == 1 else (*size, channels)
    source = quantized_input(call, source)
    bias = call.constant("bias", layer.bias) if layer.use_bias else None
    clip = accumulator_clip(call)
    if source.dtype is DType.BIT and is_signs(kernel):
        steps = [("accumulator", _binary(call, kernel, window, shape, groups))]
        if clip is not None:
            steps.append(("clipped", _clip(call, *clip)))
        if scale is not None:
            steps.append(("scaled", _scale(call, scale)))
        if bias is not None and not (call.builder.fixed_point and not np.any(bias)):  # integers stay integers
            steps.append(("linear", _add(call, bias)))
    else:
        if clip is not None:
            raise call.error("its accumulator is clipped, but its input or kernel is not binary", "leave out the clip")
        if groups != 1:
            raise call.error(f"its groups is {groups}, and its input or kernel is not binary", "use groups=1")
        if _pad_value(call) != 0:
            raise call.error(
                f"its pad_values is {layer.pad_values}, and its input or kernel is not binary", "use pad_values=0"
            )
        steps = [("linear", _full_precision(call, kernel, bias, window, shape))]
    return call.run(source, [*steps, *_activation(call, layer.activation)])


def _pad_value(call: LayerImport) -> int:
    """What padding multiplies; 0 where there is none."""
    layer = call.layer
    if getattr(layer, "padding", "valid") == "valid":
        return 0
    value = np.asarray(getattr(layer, "pad_values", 0.0))
    if value.size != 1 or float(value) not in (-1.0, 0.0, 1.0):
        raise call.error(f"its pad_values is {layer.pad_values!r}", "accepted are 0, 1 and -1")
    return int(value)


def _binary(call: LayerImport, kernel: NDArray, window: Window, shape: tuple[int, ...], groups: int) -> Step:
    weights = np.ascontiguousarray(arithmetic.sign_bits(kernel).transpose(3, 0, 1, 2))
    pad_value = _pad_value(call)

    def step(x: Tensor, output: str) -> Tensor:
        result = Tensor(output, DType.INT32, shape)
        return call.emit(ir.BinaryConv2D, x, result, window=window, weights=weights, groups=groups, pad_value=pad_value)

    return step


def _clip(call: LayerImport, bits: int, step_log2: int) -> Step:
    def step(x: Tensor, output: str) -> Tensor:
        dtype = DType.INT8 if bits <= INT8_BITS else DType.INT16 if call.builder.fixed_point else DType.FLOAT32
        result = Tensor(output, dtype, x.shape, () if dtype is DType.FLOAT32 else (-step_log2,))
        return call.emit(ir.AccumulatorClip, x, result, limit=arithmetic.clip_limit(bits), step_log2=step_log2)

    return step


def _scale(call: LayerImport, scale: NDArray[np.float32]) -> Step:
    """The multiplication by s of a scaled kernel: exact where s is quantized, else one rounding to float32."""
    layer = call.layer
    if layer.scale_fraction_bits is not None:
        if not layer.accumulator_quantizer.enabled:
            raise call.error(
                "its scale is quantized, but its accumulator_quantizer is switched off, so that it rounds products",
                "set accumulator_quantizer.enabled to True",
            )
        if call.builder.fixed_point:
            return fixed_point.kernel_scale(call)
        scale = np.ldexp(layer.scale_integers(), -np.asarray(layer.scale_fraction_bits)).astype(np.float32)
    multiplier = call.constant("kernel scale", scale)
    return lambda x, output: call.emit(ir.Affine, x, Tensor(output, DType.FLOAT32, x.shape), multiplier=multiplier)


def _add(call: LayerImport, bias: NDArray) -> Step:
    def step(x: Tensor, output: str) -> Tensor:
        x = call.builder.as_float(x) if x.dtype is DType.INT64 else x
        return call.emit(ir.Affine, x, Tensor(output, DType.FLOAT32, x.shape), offset=bias)

    return step


def _full_precision(
    call: LayerImport, kernel: NDArray, bias: NDArray | None, window: Window, shape: tuple[int, ...]
) -> Step:
    def step(x: Tensor, output: str) -> Tensor:
        x, result = call.builder.as_float(x), Tensor(output, DType.FLOAT32, shape)
        return call.emit(ir.Conv2D, x, result, window=window, weights=kernel, bias=bias)

    return step


def _batch_norm(call: LayerImport, source: Tensor) -> Tensor:
    layer = call.layer
    if layer.virtual_batch_size is not None:  # it splits the batch, so that the axes are others
        raise call.error(f"its virtual_batch_size is {layer.virtual_batch_size}", "leave it out, inference needs none")
    axes = tuple(np.atleast_1d(layer.axis).tolist())
    if axes != (len(source.shape),):
        raise call.error(f"its axis is {axes} of {len(source.shape) + 1}", "normalize the last axis, axis=-1")
    mean = call.constant("moving_mean", layer.moving_mean)
    variance = call.constant("moving_variance", layer.moving_variance)
    if np.any(variance + np.float32(layer.epsilon) <= 0):
        raise call.error("its moving_variance plus epsilon is not positive", "set a larger epsilon")

    # The affine op that it may become reads float32, and int8 with one scale.
    plain = source.dtype not in (DType.BIT, DType.INT16) and len(source.fraction_bits) <= 1
    return call.emit(
        ir.BatchNorm,
        source if plain else call.builder.as_float(source),
        Tensor(call.name, DType.FLOAT32, source.shape),
        gamma=call.constant("gamma", layer.gamma) if layer.scale else np.ones_like(mean),
        beta=call.constant("beta", layer.beta) if layer.center else np.zeros_like(mean),
        mean=mean,
        variance=variance,
        epsilon=float(layer.epsilon),
        fused=bool(layer.fused) and len(source.shape) == 3,
        keras=_evaluator(layer),
    )


def _evaluator(layer: Any) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What the Keras layer computes in inference; float64, from which a sign is the same, rounded to float32."""
    return lambda x: layer(tf.constant(x), training=False).numpy().astype(np.float32, copy=False)


def _fixed_point_batch_norm(call: LayerImport, source: Tensor) -> Tensor:
    return fixed_point.batch_norm(call, source, _affine_of_floats)


def _affine_of_floats(call: LayerImport, source: Tensor, integers: Any) -> Tensor:
    unit = np.ldexp(1.0, -np.asarray(integers.fraction_bits))
    zero = np.zeros(source.channels, np.float32)
    return call.emit(
        ir.BatchNorm,
        call.builder.as_float(source),
        Tensor(call.name, DType.FLOAT32, source.shape),
        gamma=call.constant("multiplier", integers.multiplier * unit),
        beta=call.constant("offset", integers.offset * unit),
        mean=zero,
        variance=zero + 1,
        epsilon=0.0,
        fused=False,
        keras=_evaluator(call.layer),
    )


def _int8_layer(call: LayerImport, source: Tensor) -> Tensor:
    return fixed_point.int8_layer(call, source, _activation)


# ---- Activations ----------------------------------------------------------------------------------------------------


def _activation(call: LayerImport, function: Any) -> list[tuple[str, Step]]:
    """The steps of an activation: none for a linear one."""
    if function is None or function is keras.activations.linear:
        return []
    if function in (keras.activations.relu, tf.nn.relu):
        return [("", _relu(call))]
    if function in (keras.activations.softmax, tf.nn.softmax):
        return [("", _softmax(call))]
    if produces_signs(function, [PROBES]):
        return [("", lambda x, output: signs(call, function, x, output, "activation"))]
    name = getattr(function, "__name__", type(function).__name__)
    raise call.error(
        f"its activation is {name!r}", "accepted are 'linear', 'relu', 'softmax' and signs (larq.quantizers.SteSign())"
    )


def _relu(call: LayerImport) -> Step:
    def step(x: Tensor, output: str) -> Tensor:
        if fixed_point.is_exact(call, x):
            return fixed_point.relu(call, x, output)
        x = x if x.dtype is not DType.BIT else call.builder.as_float(x)
        return call.emit(ir.Affine, x, Tensor(output, DType.FLOAT32, x.shape), activation=ir.Activation.RELU)

    return step


def _softmax(call: LayerImport) -> Step:
    return lambda x, output: call.emit(ir.Softmax, call.builder.as_float(x), Tensor(output, DType.FLOAT32, x.shape))


def _activation_layer(call: LayerImport, source: Tensor) -> Tensor:
    return call.run(source, _activation(call, call.layer.activation))


def _quantizer_layer(call: LayerImport, source: Tensor) -> Tensor:
    return signs(call, call.layer, source, call.name, "output")


def _relu_layer(call: LayerImport, source: Tensor) -> Tensor:
    call.require("max_value", None)
    call.require("negative_slope", 0)
    call.require("threshold", 0)
    return call.run(source, [("", _relu(call))])


def _softmax_layer(call: LayerImport, source: Tensor) -> Tensor:
    call.require("axis", -1, len(source.shape))
    return call.run(source, [("", _softmax(call))])


# ---- Pools and shapes -----------------------------------------------------------------------------------------------


Pool = Callable[[LayerImport, Tensor, Window, "tuple[int, ...]"], "Tensor | Mean"]


def _pool_maximum(call: LayerImport, source: Tensor, window: Window, shape: tuple[int, ...]) -> Tensor:
    op = ir.BitMaxPool2D if source.dtype is DType.BIT else ir.MaxPool2D
    return call.emit(op, source, Tensor(call.name, source.dtype, shape, source.fraction_bits), window=window)


def _pool_mean(call: LayerImport, source: Tensor, window: Window, shape: tuple[int, ...]) -> Tensor | Mean:
    if call.layer.compute_dtype == "float64":
        return fixed_point.mean(call, source, window, shape)
    source = call.builder.as_float(source)
    return call.emit(ir.AveragePool2D, source, Tensor(call.name, DType.FLOAT32, shape), window=window)


def _local(pool: Pool) -> Handler:
    def handler(call: LayerImport, source: Tensor) -> Tensor | Mean:
        call.require_image(source)
        layer = call.layer
        window, size = call.window(source, layer.pool_size, layer.strides, padding=layer.padding)
        return pool(call, source, window, (*size, source.channels))

    return handler


def _global(pool: Pool) -> Handler:
    def handler(call: LayerImport, source: Tensor) -> Tensor | Mean:
        call.require_image(source)
        height, width, channels = source.shape
        shape = (1, 1, channels) if call.layer.keepdims else (channels,)
        return pool(call, source, Window(height, width), shape)

    return handler


def _flatten(call: LayerImport, source: Tensor) -> Tensor:
    if len(source.shape) == 1:
        return source
    call.require_image(source)
    return _reshaped(call, source, (source.shape[0] * source.shape[1] * source.channels,))


def _reshape(call: LayerImport, source: Tensor) -> Tensor:
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


def _nothing(call: LayerImport, source: Tensor) -> Tensor:
    return source


_layers = keras.layers

HANDLERS: dict[type, Handler] = {
    QuantConv2D: _conv2d,
    QuantDense: _dense,
    lq.layers.QuantConv2D: _conv2d,
    lq.layers.QuantDense: _dense,
    _layers.Conv2D: _conv2d,
    _layers.Dense: _dense,
    _layers.BatchNormalization: _batch_norm,
    _layers.MaxPooling2D: _local(_pool_maximum),
    _layers.AveragePooling2D: _local(_pool_mean),
    _layers.GlobalMaxPooling2D: _global(_pool_maximum),
    _layers.GlobalAveragePooling2D: _global(_pool_mean),
    _layers.Flatten: _flatten,
    _layers.Reshape: _reshape,
    _layers.Activation: _activation_layer,
    _layers.ReLU: _relu_layer,
    _layers.Softmax: _softmax_layer,
    _layers.ZeroPadding2D: fixed_point.zero_padding,
    TakeChannels: fixed_point.take_channels,
    PadChannels: fixed_point.pad_channels,
    FixedPointBatchNormalization: _fixed_point_batch_norm,
    StorageQuantizer: fixed_point.storage_quantizer,
    Int8Conv2D: _int8_layer,
    Int8DepthwiseConv2D: _int8_layer,
    Int8Dense: _int8_layer,
    lq.quantizers.SteSign: _quantizer_layer,
    lq.quantizers.ApproxSign: _quantizer_layer,
    lq.quantizers.SwishSign: _quantizer_layer,
    _layers.Dropout: _nothing,
    _layers.SpatialDropout2D: _nothing,
    _layers.GaussianDropout: _nothing,
    _layers.GaussianNoise: _nothing,
    _layers.ActivityRegularization: _nothing,
}

# Layers with several inputs.
JOINS: dict[type, Join] = {Add: fixed_point.add, Concatenate: fixed_point.concatenate}

# Layers that compute in float64 what they compute in float32: what they give is among what they get.
EXACT_IN_FLOAT64 = (
    _layers.MaxPooling2D,
    _layers.GlobalMaxPooling2D,
    _layers.Flatten,
    _layers.Reshape,
    _layers.Activation,
    _layers.ReLU,
    _layers.ZeroPadding2D,
    _layers.Dropout,
    _layers.SpatialDropout2D,
)
MEANS = (_layers.AveragePooling2D, _layers.GlobalAveragePooling2D)
# Layers that do not cast what they get to float32, or take the sign of it at once, which that leaves as it is.
UNCAST = (*FIXED_POINT, QuantConv2D, QuantDense, lq.layers.QuantConv2D, lq.layers.QuantDense)


def supported_layers() -> str:
    """Names of the supported layer types, in words."""
    return ", ".join(dict.fromkeys(layer.__name__ for layer in (*HANDLERS, *JOINS)))
