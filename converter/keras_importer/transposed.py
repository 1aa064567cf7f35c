"""Transposed convolutions as ordinary ones, a phase each, whose channels become pixels.

The algebra, along one axis, with stride s, k taps and p pixels cut off in front. Pixel y of the output is the sum over
taps t and input pixels i with i s + t = y + p. Let y + p = s Q + P with 0 <= P < s; then t = P + s j, i = Q - j,

    out[s Q + P - p] = sum over j = 0 ... n - 1 of x[Q - j] w[P + s j],    n = ceil((k - P) / s),

a convolution with n taps in reverse, which starts n - 1 pixels before the image. So there are s phases, each with every
s-th tap, each exact where its input and kernel are binary. Their outputs stand beside each other as channels,
DepthToSpace makes them pixels, and a Slice cuts off the first p. A phase without taps, where s > k, is 0.
"""

from __future__ import annotations

import numpy as np

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor, Window
from larq_clip.converter.keras_importer import merges, products, shapes
from larq_clip.converter.keras_importer.context import LayerImport
from larq_clip.converter.keras_importer.products import Floats, Kernel
from larq_clip.converter.keras_importer.quantizers import Operand, quantized_input, quantized_kernel
from larq_clip.converter.keras_importer.weights import finished


def conv2d_transpose(call: LayerImport, source: Tensor) -> Tensor:
    """The transposed convolution of Keras, binary where its input and kernel are."""
    call.require_image(source)
    layer = call.layer
    if tuple(layer.dilation_rate) != (1, 1):
        raise call.error(f"its dilation_rate is {layer.dilation_rate}", "use dilation_rate=1")
    # Keras keeps the kernel as (kernel_h, kernel_w, out, in).
    kernel = Kernel.of(np.ascontiguousarray(quantized_kernel(call).transpose(0, 1, 3, 2)))
    height, width = (int(axis) for axis in layer.compute_output_shape((1, *source.shape))[1:3])

    def product(operand: Operand, kernel: Kernel, bias: Floats | None, output: str) -> Tensor:
        return _product(call, operand, kernel, bias, (height, width, kernel.out_channels), output)

    return finished(call, quantized_input(call, source), kernel, None, product)


def _product(
    call: LayerImport, operand: Operand, kernel: Kernel, bias: Floats | None, shape: tuple[int, int, int], output: str
) -> Tensor:
    strides, source = tuple(call.layer.strides), operand.tensor
    cut = [_cut(call, size, out, k, s) for size, out, k, s in zip(source.shape, shape, kernel.values.shape, strides)]
    places = tuple(-(-(out + p) // s) for out, p, s in zip(shape, cut, strides))  # Q of the pixels that are kept
    channels = kernel.out_channels
    phases = []
    for row in range(strides[0]):
        for column in range(strides[1]):
            name = f"{output}:phase{row}{column}"
            taken = (slice(row, None, strides[0]), slice(column, None, strides[1]))
            part = Kernel(
                kernel.values[taken][::-1, ::-1], tuple(s[taken][::-1, ::-1] for s in kernel.signs), kernel.scale
            )
            phases.append(_phase(call, operand, part, (*places, channels), name))
    joined = phases[0] if len(phases) == 1 else merges.concatenated(call, phases, f"{output}:phases")
    size = (places[0] * strides[0], places[1] * strides[1], channels)
    result = Tensor(f"{output}:pixels", DType.FLOAT32, size)
    if len(phases) > 1:
        joined = call.emit(ir.DepthToSpace, joined, result, block_h=strides[0], block_w=strides[1])
    if bias is None:
        return shapes.region(call, joined, shape, *cut, output=output, always=True)
    cropped = shapes.region(call, joined, shape, *cut, output=f"{output}:cropped", always=True)
    return call.emit(ir.Affine, cropped, Tensor(output, DType.FLOAT32, shape), offset=bias)


def _cut(call: LayerImport, size: int, out: int, kernel: int, stride: int) -> int:
    """p, as TensorFlow places the window of the convolution that it transposes."""
    return 0 if call.layer.padding == "valid" else max((size - 1) * stride + kernel - out, 0) // 2


def _phase(call: LayerImport, operand: Operand, kernel: Kernel, shape: tuple[int, int, int], name: str) -> Tensor:
    """One phase at all places; beyond the last that its taps reach it is 0."""
    taps = kernel.values.shape[:2]
    reached = tuple(min(place, size + n - 1) for place, size, n in zip(shape, operand.tensor.shape, taps))
    if 0 in taps:  # nothing of the input is inside
        x = call.builder.as_float(operand.tensor)
        first = merges.take_channels(call, x, [0], f"{name}:one") if x.channels > 1 else x
        zeros = shapes.region(call, first, (*shape[:2], 1), x.shape[0], x.shape[1], 0, output=f"{name}:zeros")
        copies = [zeros] * shape[2]
        return zeros if shape[2] == 1 else merges.concatenated(call, copies, name)
    window, placed = Window(*taps, pad_top=taps[0] - 1, pad_left=taps[1] - 1), (*reached, shape[2])
    if products.is_exact(operand, kernel):
        pad = products.plane_pad_value(call, operand, 0.0)
        part = products.exact_sum(call, operand, kernel, window, placed, f"{name}:part", pad_value=pad)
    else:
        weights = np.ascontiguousarray(kernel.values)
        part = products.float_sum(call, operand.tensor, weights, window, placed, f"{name}:part")
    return shapes.region(call, call.builder.as_float(part), shape, output=name)
