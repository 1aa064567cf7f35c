"""Layers with weights: convolutions and dense layers, binary or float."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor, Window, image_shape
from larq_clip.converter.keras_importer import fixed_point, products, shapes
from larq_clip.converter.keras_importer.activations import activation_steps
from larq_clip.converter.keras_importer.context import LayerImport, Step
from larq_clip.converter.keras_importer.products import INT8_BITS, Kernel
from larq_clip.converter.keras_importer.quantizers import (
    Operand,
    accumulator_clip,
    kernel_signs,
    level_numbers,
    quantized_input,
    quantized_kernel,
)

Floats = NDArray[np.float32]
# Of what is multiplied, the bias of a float one, and the name of the result.
Product = Callable[[Operand, Kernel, "Floats | None", str], Tensor]
# Of what is multiplied, bits and log2 of the step of the clip, and the name of the result.
ClippedProduct = Callable[[Operand, Kernel, "tuple[int, int]", str], Tensor]


def conv2d(call: LayerImport, source: Tensor) -> Tensor:
    call.require_image(source)
    layer = call.layer
    window, size = _placed(call, source, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
    return _weighted(call, source, window, size, layer.groups)


def conv1d(call: LayerImport, source: Tensor) -> Tensor:
    """A convolution over an image of one row."""
    call.require_sequence(source)
    layer = call.layer
    kernel, strides, dilation = ((1, *axis) for axis in (layer.kernel_size, layer.strides, layer.dilation_rate))
    window, size = _placed(call, source, kernel, strides, dilation, layer.padding)
    return _weighted(call, source, window, size, layer.groups)


def dense(call: LayerImport, source: Tensor) -> Tensor:
    return _weighted(call, source, Window(), image_shape(source.shape)[:2])


def depthwise(call: LayerImport, source: Tensor) -> Tensor:
    """A convolution with as many groups as input channels."""
    call.require_image(source)
    layer = call.layer
    window, size = _placed(call, source, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
    kernel = _depthwise_kernel(quantized_kernel(call, "depthwise_kernel"))
    return _weighted(call, source, window, size, source.channels, Kernel.of(kernel))


def separable(call: LayerImport, source: Tensor) -> Tensor:
    """A depthwise convolution, binary where its input and kernel are, and one of 1x1 pixels of what that gives."""
    call.require_image(source)
    layer = call.layer
    window, size = _placed(call, source, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
    operand = quantized_input(call, source)
    kernel = Kernel.of(_depthwise_kernel(quantized_kernel(call, "depthwise_kernel")))
    shape = (*size, kernel.out_channels)
    inner = _product(call, window, shape, source.channels)(operand, kernel, None, f"{call.name}:depthwise")
    if products.is_exact(operand, kernel):
        inner = _scaled(call, inner, operand, kernel, f"{call.name}:scaled")
    pointwise = quantized_kernel(call, "pointwise_kernel")
    bias = call.constant("bias", layer.bias) if layer.use_bias else None

    def mix(x: Tensor, output: str) -> Tensor:
        return products.float_sum(call, x, pointwise, Window(), (*size, pointwise.shape[-1]), output, bias=bias)

    return call.run(inner, [("linear", mix), *activation_steps(call, layer.activation)])


def int8_layer(call: LayerImport, source: Tensor) -> Tensor:
    return fixed_point.int8_layer(call, source, activation_steps)


def _depthwise_kernel(kernel: Floats) -> Floats:
    """``(kernel_h, kernel_w, in, multiplier)`` as one group a channel, ``(kernel_h, kernel_w, 1, in multiplier)``."""
    return kernel.reshape(*kernel.shape[:2], 1, -1)


def _placed(
    call: LayerImport, source: Tensor, kernel: tuple, strides: tuple, dilation: tuple, padding: str
) -> tuple[Window, tuple[int, int]]:
    """The window of a convolution, and ``(height, width)`` of its output."""
    kernel, strides, dilation = tuple(kernel), tuple(strides), tuple(dilation)
    if padding != "causal":
        return call.window(source, kernel, strides, dilation, padding)
    width, before = image_shape(source.shape)[1], (kernel[1] - 1) * dilation[1]
    return Window(*kernel, *strides, *dilation, 0, before), (1, -(-width // strides[1]))


def _weighted(
    call: LayerImport,
    source: Tensor,
    window: Window,
    size: tuple[int, int],
    groups: int = 1,
    kernel: Kernel | None = None,
) -> Tensor:
    """The layer whose window lies over its input, with outputs of `size`."""
    scale = None
    if kernel is None:
        values, scale = kernel_signs(call)
        kernel = Kernel.of(values.reshape(window.kernel_h, window.kernel_w, *values.shape[-2:]))
    channels = kernel.out_channels
    shape = (*size[3 - len(source.shape) :], channels)
    product, clipped = _product(call, window, shape, groups), _clipped_product(call, window, shape, groups)
    return finished(call, quantized_input(call, source), kernel, scale, product, clipped)


def _product(call: LayerImport, window: Window, shape: tuple[int, ...], groups: int) -> Product:
    """What the window computes of an input and a kernel."""

    def product(operand: Operand, kernel: Kernel, bias: Floats | None, output: str) -> Tensor:
        if products.is_exact(operand, kernel):
            pad = products.plane_pad_value(call, operand, _pad_value(call))
            return products.exact_sum(call, operand, kernel, window, shape, output, groups=groups, pad_value=pad)
        x, placed, pad_value = operand.tensor, window, _pad_value(call)
        if pad_value != 0:
            x, placed = _padded(call, x, window, shape, pad_value)
        return products.float_sum(call, x, kernel.values, placed, shape, output, groups=groups, bias=bias)

    return product


def _clipped_product(call: LayerImport, window: Window, shape: tuple[int, ...], groups: int) -> ClippedProduct:
    """What the window computes of an input of levels and a sign kernel, clipped."""

    def product(operand: Operand, kernel: Kernel, clip: tuple[int, int], output: str) -> Tensor:
        pad = products.plane_pad_value(call, operand, _pad_value(call))
        return products.clipped_levels(call, operand, kernel, window, shape, clip, output, groups=groups, pad_value=pad)

    return product


def _padded(
    call: LayerImport, source: Tensor, window: Window, shape: tuple[int, ...], value: float
) -> tuple[Tensor, Window]:
    """The input with all that the window sees beyond it, and the window over that."""
    rows, columns = window.axes(source.shape, shape)
    sizes = [(axis.out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1 for axis in (rows, columns)]
    around = (*sizes[3 - len(source.shape) :], source.channels)
    begin = (-rows.pad_before, -columns.pad_before, 0)
    x = call.builder.as_float(source)
    padded = shapes.region(call, x, around, *begin, value=value, output=f"{call.name}:padded")
    return padded, dataclasses.replace(window, pad_top=0, pad_left=0)


def finished(
    call: LayerImport,
    operand: Operand,
    kernel: Kernel,
    scale: Floats | None,
    product: Product,
    clipped: ClippedProduct | None = None,
) -> Tensor:
    """Product, clip, scale of the kernel, bias, activation.

    Args:
        scale: what multiplies the accumulator of a layer that says so itself; the kernel holds its signs.
        clipped: of layers whose accumulators can be clipped.
    """
    layer = call.layer
    bias = call.constant("bias", layer.bias) if layer.use_bias else None
    clip = accumulator_clip(call)
    exact = products.is_exact(operand, kernel)
    of_levels = clip is not None and _requires_levels(call, operand, kernel)
    if not exact and operand.levels and not operand.is_sign:
        operand = Operand(level_numbers(call, operand, f"{call.name}:input:numbers"))
    own_bias = None if exact else bias
    steps = [("accumulator" if exact else "linear", lambda _, output: product(operand, kernel, own_bias, output))]
    if clip is not None and clipped is not None and of_levels:
        steps = [("clipped", lambda _, output: clipped(operand, kernel, clip, output))]
    elif clip is not None:
        steps.append(("clipped", _clip(call, *clip)))
    if exact and scale is None and (kernel.scale is not None or operand.levels > 1):
        steps.append(("scaled", lambda x, output: _scaled(call, x, operand, kernel, output)))
    if scale is not None:
        steps.append(("scaled", _scale(call, scale)))
    if exact and bias is not None and not (call.builder.fixed_point and not np.any(bias)):  # integers stay integers
        steps.append(("linear", _bias(call, bias)))
    return call.run(operand.tensor, [*steps, *activation_steps(call, layer.activation)])


def _requires_levels(call: LayerImport, operand: Operand, kernel: Kernel) -> bool:
    """Whether a clipped accumulator is a sum of levels and not of signs.

    Raises:
        ConversionError: where it is neither, or the layer does not count it as the integer that it is.
    """
    if len(kernel.signs) != 1 or kernel.scale is not None or not operand.levels:
        raise call.error("its accumulator is clipped, but its input or kernel is not binary", "leave out the clip")
    found = None if operand.is_sign else operand.levels
    if call.layer.input_levels != found:
        raise call.error(
            f"its accumulator is clipped with input_levels={call.layer.input_levels}, but its input_quantizer gives "
            + ("-1 and +1" if found is None else f"m / {found}"),
            f"build it with input_levels={found}, as larq_clip.models.clip_model does",
        )
    return found is not None


def _scaled(call: LayerImport, x: Tensor, operand: Operand, kernel: Kernel, output: str) -> Tensor:
    """s / n times an exact sum, one rounding to float32."""
    scale = np.ones(kernel.out_channels) if kernel.scale is None else kernel.scale.astype(np.float64)
    multiplier = (scale / operand.levels).astype(np.float32)
    if np.all(multiplier == 1):
        return x
    largest = operand.levels * int(np.prod(kernel.values.shape[:3]))
    result = Tensor(output, DType.FLOAT32, x.shape)
    return call.emit(ir.Affine, x, result, multiplier=multiplier, largest_sum=largest)


def _pad_value(call: LayerImport) -> float:
    """What padding multiplies; 0 where there is none."""
    layer = call.layer
    if getattr(layer, "padding", "valid") != "same":
        return 0.0
    value = np.asarray(getattr(layer, "pad_values", 0.0))
    if value.size != 1 or not np.isfinite(float(value)):
        raise call.error(f"its pad_values is {layer.pad_values!r}", "accepted is one number")
    return float(value)


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


def _bias(call: LayerImport, bias: NDArray) -> Step:
    def step(x: Tensor, output: str) -> Tensor:
        x = call.builder.as_float(x) if x.dtype is DType.INT64 else x
        return call.emit(ir.Affine, x, Tensor(output, DType.FLOAT32, x.shape), offset=bias)

    return step
