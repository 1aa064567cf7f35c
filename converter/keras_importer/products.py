"""Products of an input and a kernel, what a layer with weights starts with: sums of signs where both are few bits.

The algebra. A binary convolution sums sigma w over the taps, sigma and w in {-1, +1}. With b = (1 + sigma) / 2, 0 or 1,
the sum of b w is (sum of w + sum of sigma w) / 2, where a tap outside the image, b = 0, has sigma = -1. So

    1.  an input of levels, q = m / n with n = 2^k - 1 and m = sum over j of 2^j b_j, has with the planes sigma_j
            sum of q w  =  1/n  sum over j of 2^(j-1) (sum of w + sum of sigma_j w)           k binary convolutions;
    2.  a ternary kernel, w = (u + v) / 2 with u = v = w where w is not 0, u = +1 and v = -1 where it is, has
            sum of x w  =  1/2 (sum of x u + sum of x v)                                      twice as many;
    3.  a kernel s w with one s > 0 per filter has s times the sum of x w.

All sums are integers, exact in float32 up to 2^24; s, or s / n, multiplies once, at the end. Keras multiplies first and
rounds as it sums.

Where the accumulator a = sum of m w is clipped, it stays an integer. With C the sum of w, and a_j that of sigma_j w,

    4.  2 a  =  sum over j of 2^j a_j  +  n C,

whose last term but C is computed by a convolution with a fixed-point epilogue that adds the others from memory, in 16
bits. Its store by 1 + log2(step) bits is the clip: round half up and saturate, once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip.converter import ir
from larq_clip.converter.ir import ArithmeticKind, DType, Epilogue, Tensor, Window
from larq_clip.converter.keras_importer.context import LayerImport
from larq_clip.converter.keras_importer.merges import arithmetic as fold
from larq_clip.converter.keras_importer.quantizers import Operand

Floats = NDArray[np.float32]
INT8_BITS = 8
LARGEST_PART = arithmetic.clip_limit(16)  # of the sum of a plane, kept in 16 bits


class Kernel(NamedTuple):
    """A kernel ``(kernel_h, kernel_w, in_channels / groups, out_channels)`` as scale times the mean of sign kernels.

    Attributes:
        values: as the layer multiplies with them.
        signs: -1 and +1, one kernel, two where it is ternary, none where it is of more bits.
        scale: per filter, ``(out_channels,)``; none where it is 1.
    """

    values: Floats
    signs: tuple[Floats, ...]
    scale: Floats | None = None

    @classmethod
    def of(cls, values: Floats) -> Kernel:
        magnitude = np.abs(values)
        scale = magnitude.max(axis=(0, 1, 2))
        if np.any((magnitude != scale) & (magnitude != 0)):
            return cls(values, ())
        one = np.where(values < 0, np.float32(-1), np.float32(1))
        factor = None if np.all(scale == 1) else scale
        if np.all(magnitude == scale):
            return cls(values, (one,), factor)
        if factor is not None and np.all((scale == 1) | (scale == 0)):
            factor = None  # all of a filter is 0, which needs no scale
        return cls(values, (one, np.where(values > 0, np.float32(1), np.float32(-1))), factor)

    @property
    def out_channels(self) -> int:
        return self.values.shape[-1]


def is_exact(operand: Operand, kernel: Kernel) -> bool:
    """Whether a product is a sum of signs, not of float32."""
    return operand.levels > 0 and bool(kernel.signs)


def is_binary(operand: Operand, kernel: Kernel) -> bool:
    """Whether a product is one binary convolution and nothing else."""
    return operand.is_sign and len(kernel.signs) == 1


def binary(
    call: LayerImport,
    bits: Tensor,
    signs: Floats,
    window: Window,
    shape: tuple[int, ...],
    output: str,
    *,
    groups: int = 1,
    pad_value: int = 0,
) -> Tensor:
    """The accumulator of one binary convolution, int32."""
    result = Tensor(output, DType.INT32, shape)
    weights = _packed(signs)
    return call.emit(ir.BinaryConv2D, bits, result, window=window, weights=weights, groups=groups, pad_value=pad_value)


def _packed(signs: Floats) -> NDArray[np.uint8]:
    return np.ascontiguousarray(arithmetic.sign_bits(signs).transpose(3, 0, 1, 2))


def clipped_levels(
    call: LayerImport,
    operand: Operand,
    kernel: Kernel,
    window: Window,
    shape: tuple[int, ...],
    clip: tuple[int, int],
    output: str,
    *,
    groups: int = 1,
    pad_value: int = -1,
) -> Tensor:
    """The clipped sum of m w of an input of levels and one sign kernel: formula 4 above.

    int8, or of more than 8 bits int16, and float32 of that in models without fixed point, whose layers read that.

    Args:
        clip: bits, and log2 of the step.
        pad_value: what a tap outside the image multiplies in each plane.

    Raises:
        ConversionError: where a sum of one of several planes does not fit 16 bits.
    """
    (signs,), (bits, step_log2) = kernel.signs, clip
    products, channels = int(np.prod(signs.shape[:3])), kernel.out_channels
    if len(operand.planes) > 1 and products > LARGEST_PART:
        raise call.error(
            f"it is clipped and sums {products} products of inputs of {len(operand.planes)} bits",
            f"accepted are {LARGEST_PART}, or inputs of 1 bit; leave it unclipped: clip_model(model, layers=[...])",
        )
    convolution = {"window": window, "weights": _packed(signs), "groups": groups, "pad_value": pad_value}
    *others, last = operand.planes
    parts = [
        call.emit(
            ir.BinaryConv2D,
            plane,
            Tensor(f"{output}:plane{j}", DType.INT16, shape),
            **convolution,
            epilogue=Epilogue.FIXED_POINT,
            fixed_point=ir.FixedPoint(),
        )
        for j, plane in enumerate(others)
    ]
    finer = max(0, -1 - step_log2)  # a step below 1/2 needs more bits than 2 a has
    dtype = DType.INT8 if bits <= INT8_BITS else DType.INT16
    shift, limit = 1 + step_log2 + finer, arithmetic.clip_limit(bits)
    offset = operand.levels * signs.sum(axis=(0, 1, 2), dtype=np.float64).astype(np.int64) << finer
    steps = [*ir.affine_step(np.full(channels, 1 << len(others) + finer), offset)]
    for j in range(len(parts)):
        steps.append(ir.add_step(j + 1, np.zeros(channels, np.int64), np.full(channels, j + finer)))
    if limit != arithmetic.clip_limit(8 * dtype.numpy.itemsize):  # else the store saturates there
        ends = np.full(channels, limit << shift, np.int64)
        steps += ir.clip_steps(-ends, ends)
    fixed_point = ir.FixedPoint(tuple(steps), (ir.shift_store(np.full(channels, shift)),))
    as_float = dtype is DType.INT16 and not call.builder.fixed_point
    clipped = call.emit_many(
        ir.BinaryConv2D,
        [last, *parts],
        Tensor(f"{output}:int16" if as_float else output, dtype, shape, (-step_log2,)),
        **convolution,
        epilogue=Epilogue.FIXED_POINT,
        fixed_point=fixed_point,
    )
    if not as_float:
        return clipped
    store = ir.FixedPoint((), (ir.shift_store(clipped.scale_bits),))
    return call.emit(ir.Elementwise, clipped, Tensor(output, DType.FLOAT32, shape), fixed_point=store)


def exact_sum(
    call: LayerImport,
    operand: Operand,
    kernel: Kernel,
    window: Window,
    shape: tuple[int, ...],
    output: str,
    *,
    groups: int = 1,
    pad_value: int = 0,
) -> Tensor:
    """n times the sum of q w of the first two formulas above, without a scale.

    Of signs and one sign kernel int32, the accumulator of one binary convolution; else float32, but integers.
    """
    if is_binary(operand, kernel):
        bits, signs = operand.tensor, kernel.signs[0]
        return binary(call, bits, signs, window, shape, output, groups=groups, pad_value=pad_value)
    terms: list[Tensor] = []
    for place, signs in enumerate(kernel.signs):
        total = signs.sum(axis=(0, 1, 2), dtype=np.float64)
        for plane, bits in enumerate(operand.planes):
            name = f"{output}:{'uv'[place] if len(kernel.signs) > 1 else 'plane'}{plane}"
            accumulator = binary(call, bits, signs, window, shape, name, groups=groups, pad_value=pad_value)
            factor = (1.0 if operand.is_sign else 2.0 ** (plane - 1)) / len(kernel.signs)
            offset = np.zeros_like(total) if operand.is_sign else factor * total
            last = len(kernel.signs) * len(operand.planes) == 1
            result = Tensor(output if last else f"{name}:weighted", DType.FLOAT32, shape)
            constants = {"multiplier": np.full(len(total), factor, np.float32), "offset": offset.astype(np.float32)}
            terms.append(call.emit(ir.Affine, accumulator, result, **constants))
    return terms[0] if len(terms) == 1 else fold(call, ArithmeticKind.ADD, terms, output)


def plane_pad_value(call: LayerImport, operand: Operand, pad_value: float) -> int:
    """What a tap outside the image multiplies in each plane, from what it is in the quantized input."""
    accepted = (-1.0, 0.0, 1.0) if operand.is_sign else (0.0, 1.0)
    if pad_value not in accepted:
        words = " and ".join(f"{value:g}" for value in accepted)
        raise call.error(f"its pad_values is {pad_value:g}", f"accepted are {words} around a binary input")
    return int(pad_value) if operand.is_sign else -1 if pad_value == 0 else 1


def float_sum(
    call: LayerImport,
    source: Tensor,
    kernel: Floats,
    window: Window,
    shape: tuple[int, ...],
    output: str,
    *,
    groups: int = 1,
    bias: Floats | None = None,
) -> Tensor:
    """The convolution in float32, its bias added."""
    result = Tensor(output, DType.FLOAT32, shape)
    source = call.builder.as_float(source)
    return call.emit(ir.Conv2D, source, result, window=window, weights=kernel, groups=groups, bias=bias)
