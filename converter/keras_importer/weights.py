"""Layers with weights: convolutions and dense layers, binary or float."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor, Window, image_shape
from larq_clip.converter.keras_importer import fixed_point
from larq_clip.converter.keras_importer.activations import activation_steps
from larq_clip.converter.keras_importer.context import LayerImport, Step
from larq_clip.converter.keras_importer.quantizers import accumulator_clip, is_signs, kernel_signs, quantized_input

INT8_BITS = 8


def conv2d(call: LayerImport, source: Tensor) -> Tensor:
    call.require_image(source)
    layer = call.layer
    window, size = call.window(source, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
    return _weighted(call, source, window, size, groups=layer.groups)


def dense(call: LayerImport, source: Tensor) -> Tensor:
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
    return call.run(source, [*steps, *activation_steps(call, layer.activation)])


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


def int8_layer(call: LayerImport, source: Tensor) -> Tensor:
    return fixed_point.int8_layer(call, source, activation_steps)
