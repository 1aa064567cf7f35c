"""Fixed-point arithmetic in NumPy: batch norms, stored tensors, the layers that are not binary. No TensorFlow here.

It goes on where `larq_clip.arithmetic` ends and is the reference that Keras layers, converter and runtime agree with. A
fixed-point number is an integer q with f fraction bits and stands for q 2^-f; f may be negative and differ by channel,
channels being the last axis. A clipped accumulator of step 2^k has f = -k. All rounding is half up, floor(x + 1/2), and
happens only where a docstring says so. Integers are int64 inside.

The source is Vorabbi et al., "Optimizing data-flow in binary neural networks", Algorithm 2 and Fig. 3, which print
1/FracBits where 2^-FracBits is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from larq_clip import arithmetic
from larq_clip.arithmetic import IntArray, WindowAxis

MULTIPLIER_BITS = 16
OFFSET_BITS = 32
VARIABLES = ("folded", "paper")
GRANULARITIES = ("layer", "channel")
STORED_BITS = (8, 16)
LARGEST_FRACTION_BITS = 24
KERNEL_BITS = 8
STEP_MANTISSA_BITS = 8

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]


def round_half_up(x: ArrayLike) -> Integers:
    """floor(x + 1/2) of float64 numbers; exact, also where adding 1/2 in floating point would round."""
    x = np.asarray(x, np.float64)
    lower = np.floor(x)
    return (lower + (x - lower >= 0.5)).astype(np.int64)


def ceil_log2(x: ArrayLike) -> Integers:
    """The smallest e with x <= 2^e, per element; exact, x > 0."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.asarray(exponent, np.int64) - (mantissa == 0.5)


def shift_half_up(v: IntArray, shift: ArrayLike) -> Integers:
    """v / 2^shift, rounded half up; a negative shift multiplies."""
    v, shift = np.asarray(v, np.int64), np.asarray(shift, np.int64)
    right = np.maximum(shift, 0)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    return ((v + half) >> right) << np.maximum(-shift, 0)


# ---- Formats (Algorithm 2, lines 4 to 9) ----------------------------------------------------------------------------


def range_bits(largest: float) -> int:
    """Bits before the point: clip(ceil(log2(largest)), 0, 15); 0 for 0.

    Raises:
        ValueError: where `largest` is negative or not finite.
    """
    if not np.isfinite(largest) or largest < 0:
        raise ValueError(f"the largest magnitude is {largest!r}; accepted are finite numbers from 0 on")
    return 0 if largest == 0 else int(np.clip(ceil_log2(largest), 0, MULTIPLIER_BITS - 1))


def fraction_bits(largest: float) -> int:
    """Bits after the point of a 16-bit format that holds `largest`: 15 - `range_bits`."""
    return MULTIPLIER_BITS - 1 - range_bits(largest)


def storage_fraction_bits(largest: ArrayLike, bits: int = 8) -> Integers:
    """Fraction bits of a stored tensor, f = bits - 1 - ceil(log2(r)), per element of r = `largest`.

    r is a high percentile of |y|, per channel or of the tensor. Where it is 0, nothing was seen, and f is bits - 1.
    Always |f| <= 24.

    Raises:
        ValueError: where `largest` is negative or not finite.
    """
    largest = np.asarray(largest, np.float64)
    if not np.all(np.isfinite(largest)) or np.any(largest < 0):
        raise ValueError("the largest magnitudes hold numbers that are negative or not finite")
    exponent = ceil_log2(np.where(largest == 0, 1.0, largest))
    return np.clip(bits - 1 - exponent, -LARGEST_FRACTION_BITS, LARGEST_FRACTION_BITS)


# ---- Batch norm (section 3.2, Algorithm 2) --------------------------------------------------------------------------


class FixedPointAffine(NamedTuple):
    """y = multiplier * x + offset, both integers times 2^-fraction_bits: int16 and int32 ``(channels,)``.

    The fraction bits are one integer for the layer, or one per channel.
    """

    multiplier: NDArray[np.int16]
    offset: NDArray[np.int32]
    fraction_bits: int | list[int]


class BatchNorm(NamedTuple):
    """The four variables of a batch norm ``(channels,)`` and its epsilon; gamma is 1 and beta 0 where it has none."""

    gamma: NDArray
    beta: NDArray
    mean: NDArray
    variance: NDArray
    epsilon: float


class AffineFormat(NamedTuple):
    """Format of a fixed-point batch norm.

    Attributes:
        fraction_bits: of multiplier and offset: 0 to 15 for the layer, as Algorithm 2 chooses it, or a list of one per
            channel, -24 to 24.
        variable_fraction_bits: of gamma, beta, mean and sigma, 0 to 15, where these are quantized first
            (variables="paper"); None where only the folded s and t are (variables="folded").
    """

    fraction_bits: int | list[int]
    variable_fraction_bits: int | None = None


def fold(norm: BatchNorm) -> tuple[Reals, Reals]:
    """s = gamma / sqrt(variance + epsilon) and t = beta - mean s in float64, so that BN(x) = s x + t."""
    s = np.asarray(norm.gamma, np.float64) / _sigma(norm)
    return s, np.asarray(norm.beta, np.float64) - np.asarray(norm.mean, np.float64) * s


def choose_format(norm: BatchNorm, variables: str = "folded", granularity: str = "layer") -> AffineFormat:
    """The format of a batch norm, from the ranges of its variables.

    With variables="folded", RangeBits = clip(ceil(log2(max(|s|, |t|))), 0, 15) over all channels. With "paper" gamma,
    beta, mean and sigma get the largest RangeBits of the four, and then s and t, folded from the quantized four, a
    format in the same way.

    With granularity="channel", for "folded" only, each channel has its own: as many fraction bits as s leaves in 16
    bits and t in 31, at most 24. Where the s of a layer differ by much, one format leaves the small ones few bits: a
    trained QuickNet has layers whose median s is off by 2 %.

    Raises:
        ValueError: for other values of `variables` and `granularity`, and for variables that are not finite.
    """
    if variables not in VARIABLES:
        raise ValueError(f"variables is {variables!r}; accepted are {' and '.join(map(repr, VARIABLES))}")
    if granularity not in GRANULARITIES or (granularity, variables) == ("channel", "paper"):
        raise ValueError(
            f"granularity is {granularity!r} with variables={variables!r}; accepted are 'layer', and 'channel' with "
            "variables='folded'"
        )
    if granularity == "channel":
        return AffineFormat(_fraction_bits_by_channel(*fold(norm)))
    if variables == "folded":
        return AffineFormat(fraction_bits(_largest(*fold(norm))))
    own = fraction_bits(_largest(norm.gamma, norm.beta, norm.mean, _sigma(norm)))
    gamma, beta, mean, sigma = quantize_variables(norm, own)
    s, t = gamma / sigma, np.ldexp((beta * sigma - mean * gamma) / sigma, -own)
    return AffineFormat(fraction_bits(_largest(s, t)), own)


def quantize_variables(norm: BatchNorm, bits: int) -> tuple[Integers, Integers, Integers, Integers]:
    """gamma, beta, mean and sigma = sqrt(variance + epsilon) as clip(round_half_up(v 2^bits), +-32767), sigma >= 1."""
    limit = arithmetic.clip_limit(MULTIPLIER_BITS)
    four = (norm.gamma, norm.beta, norm.mean, _sigma(norm))
    gamma, beta, mean, sigma = (_saturate(np.ldexp(np.asarray(v, np.float64), bits), limit) for v in four)
    return gamma, beta, mean, np.maximum(sigma, 1)


def quantize_batch_norm(norm: BatchNorm, chosen: AffineFormat) -> FixedPointAffine:
    """The integers of a batch norm in a format: s to int16 and t to int32, each rounded half up once and saturated.

    With variables="paper" s and t are the exact quotients of the quantized variables, s = gamma / sigma and
    t = (beta sigma - mean gamma) / sigma, rounded in integer arithmetic.
    """
    bits = np.asarray(chosen.fraction_bits, np.int64)
    if chosen.variable_fraction_bits is None:
        s, t = (round_half_up(np.ldexp(v, bits)) for v in map(_within_int64, fold(norm)))
    else:
        own = chosen.variable_fraction_bits
        gamma, beta, mean, sigma = quantize_variables(norm, own)
        s = _divide_half_up(gamma << bits, sigma)
        t = _divide_half_up((beta * sigma - mean * gamma) << bits, sigma << own)
    limit, wide = arithmetic.clip_limit(MULTIPLIER_BITS), arithmetic.clip_limit(OFFSET_BITS)
    return FixedPointAffine(
        np.clip(s, -limit, limit).astype(np.int16), np.clip(t, -wide, wide).astype(np.int32), chosen.fraction_bits
    )


def affine(q: IntArray, norm: FixedPointAffine, input_fraction_bits: ArrayLike = 0) -> tuple[Integers, Integers]:
    """y = multiplier x + offset, exact, for x = q 2^-input_fraction_bits ``(..., channels)``.

    Behind a clipped accumulator of step 2^k, input_fraction_bits is -k, and with |q| <= 127 and k <= 8, say, the
    integers fit 32 bits.

    Returns:
        The integers ``(..., channels)`` and their fraction bits, ``(channels,)`` or (): those of `norm`, plus those of
        the input where that has some.
    """
    given = np.asarray(input_fraction_bits, np.int64)
    product = np.asarray(q, np.int64) * norm.multiplier.astype(np.int64)
    total = (product << np.maximum(-given, 0)) + (norm.offset.astype(np.int64) << np.maximum(given, 0))
    return total, np.asarray(norm.fraction_bits, np.int64) + np.maximum(given, 0)


def _fraction_bits_by_channel(s: Reals, t: Reals) -> list[int]:
    _largest(s, t)
    by_s = MULTIPLIER_BITS - 1 - ceil_log2(np.where(s == 0, 1.0, np.abs(s)))
    by_t = OFFSET_BITS - 2 - ceil_log2(np.where(t == 0, 1.0, np.abs(t)))
    return np.clip(np.minimum(by_s, by_t), -LARGEST_FRACTION_BITS, LARGEST_FRACTION_BITS).tolist()


def _sigma(norm: BatchNorm) -> Reals:
    return np.sqrt(np.asarray(norm.variance, np.float64) + norm.epsilon)


def _largest(*arrays: ArrayLike) -> float:
    largest = max(float(np.max(np.abs(array))) for array in arrays)
    range_bits(largest)  # refuses what is not finite
    return largest


def _within_int64(v: Reals) -> Reals:
    return np.clip(v, -(2.0**40), 2.0**40)  # far beyond what int32 holds; saturated later


def _saturate(v: Reals, limit: int) -> Integers:
    return np.clip(round_half_up(_within_int64(v)), -limit, limit)


def _divide_half_up(numerator: Integers, denominator: Integers) -> Integers:
    """floor(numerator / denominator + 1/2), denominator > 0."""
    return (2 * numerator + denominator) // (2 * denominator)


# ---- Stored tensors and sums ----------------------------------------------------------------------------------------


def store(v: IntArray, v_fraction_bits: ArrayLike, stored_fraction_bits: ArrayLike, bits: int = 8) -> NDArray[np.int32]:
    """Store v 2^-v_fraction_bits: q = clip(round_half_up(y 2^f), +-(2^(bits-1) - 1)), f = stored_fraction_bits."""
    limit = arithmetic.clip_limit(bits)
    shift = np.asarray(v_fraction_bits, np.int64) - np.asarray(stored_fraction_bits, np.int64)
    return np.clip(shift_half_up(v, shift), -limit, limit).astype(np.int32)


def store_reals(y: ArrayLike, stored_fraction_bits: ArrayLike, bits: int = 8) -> NDArray[np.int32]:
    """`store` of real numbers, float64."""
    scaled = np.ldexp(np.asarray(y, np.float64), np.asarray(stored_fraction_bits, np.int64))
    return _saturate(scaled, arithmetic.clip_limit(bits)).astype(np.int32)


def values(q: IntArray, q_fraction_bits: ArrayLike) -> Reals:
    """q 2^-f as float64: exact below 2^53."""
    return np.ldexp(np.asarray(q, np.float64), -np.asarray(q_fraction_bits, np.int64))


def add(*terms: tuple[IntArray, ArrayLike]) -> tuple[Integers, Integers]:
    """Exact sum of (integers, fraction bits) pairs; its fraction bits are the largest of theirs."""
    formats = [np.asarray(bits, np.int64) for _, bits in terms]
    common = formats[0]
    for other in formats[1:]:
        common = np.maximum(common, other)
    total: Integers = np.zeros((), np.int64)
    for (q, _), own in zip(terms, formats):
        total = total + (np.asarray(q, np.int64) << (common - own))
    return total, common


# ---- Layers that are not binary (section 3: first and last layer) ---------------------------------------------------


class Int8Kernel(NamedTuple):
    """A kernel as int8 weights and one step per output channel: w = step[c] q.

    Attributes:
        weights: int8, in the layout of the kernel it was made of.
        mantissa: int, 1 to 255, per output channel; step = mantissa 2^-fraction_bits.
        fraction_bits: int, per output channel.
    """

    weights: NDArray[np.int8]
    mantissa: Integers
    fraction_bits: Integers


def kernel_steps(largest: ArrayLike) -> Reals:
    """Per output channel the smallest step with 127 step >= `largest` and a mantissa of 8 bits; 1 where that is 0.

    A step of the form m 2^-k, m < 256, costs less than one part in 128 of the range, and is exact as an integer
    multiplier m: the weights are rounded to multiples of what the multiplier says, and not to a step that it then
    misses. Times the 16-bit multiplier of a batch norm it fits 24 bits.

    Raises:
        ValueError: where `largest` is negative or not finite.
    """
    largest = np.asarray(largest, np.float64)
    if not np.all(np.isfinite(largest)) or np.any(largest < 0):
        raise ValueError("the kernel holds numbers that are not finite")
    wanted = np.where(largest == 0, 1.0, largest / arithmetic.clip_limit(KERNEL_BITS))
    mantissa, exponent = np.frexp(wanted)
    return np.ldexp(np.ceil(np.ldexp(mantissa, STEP_MANTISSA_BITS)), exponent - STEP_MANTISSA_BITS)


def split_steps(steps: ArrayLike) -> tuple[Integers, Integers]:
    """Mantissa and fraction bits of steps m 2^-k, the mantissa odd.

    Raises:
        ValueError: where a step is not positive or needs more than 8 bits.
    """
    steps = np.asarray(steps, np.float64)
    if not np.all(np.isfinite(steps)) or np.any(steps <= 0):
        raise ValueError("steps of a kernel must be positive")
    fraction, exponent = np.frexp(steps)
    mantissa = np.ldexp(fraction, STEP_MANTISSA_BITS)
    if np.any(mantissa != np.floor(mantissa)):
        raise ValueError(f"steps of a kernel must be m 2^-k with integers m below {2**STEP_MANTISSA_BITS} and k")
    m = mantissa.astype(np.int64)
    twos = np.round(np.log2(m & -m)).astype(np.int64)
    return m >> twos, STEP_MANTISSA_BITS - exponent.astype(np.int64) - twos


def quantize_kernel(kernel: NDArray, steps: NDArray) -> Int8Kernel:
    """clip(round_half_up(w / step), +-127), `steps` broadcast against the kernel; quotients are those of float64."""
    quotients = np.asarray(kernel, np.float64) / steps
    return Int8Kernel(_saturate(quotients, arithmetic.clip_limit(KERNEL_BITS)).astype(np.int8), *split_steps(steps))


def quantize_bias(bias: NDArray, steps: NDArray) -> NDArray[np.int32]:
    """round_half_up(bias / step) saturated to int32: the bias in units of the accumulator."""
    return _saturate(np.asarray(bias, np.float64) / steps, arithmetic.clip_limit(OFFSET_BITS)).astype(np.int32)


def int8_conv2d(
    x: IntArray, kernel: Int8Kernel, bias: IntArray | None, axes: tuple[WindowAxis, WindowAxis], groups: int = 1
) -> tuple[Integers, Integers]:
    """Convolution of int8 with int8: mantissa[c] (sum of w x + bias[c]), exact, not rounded.

    Args:
        x: ``(batch, height, width, in_channels)``, |x| <= 127. Where the channels have different fraction bits, the
            kernel was made of w[i] 2^-f[i], so that the accumulator does not know of them.
        kernel: with weights ``(out_channels, kernel_h, kernel_w, in_channels / groups)``.
        bias: int32 ``(out_channels,)`` or None.
        axes: placement of rows and columns; what lies outside the image counts as 0.
        groups: channel groups, as in Keras; a depthwise convolution has as many as input channels.

    Returns:
        Integers ``(batch, out_h, out_w, out_channels)`` and their fraction bits ``(out_channels,)``.

    Raises:
        OverflowError: where an accumulator does not fit int32.
    """
    accumulator = np.rint(arithmetic.convolve(x, kernel.weights, axes, groups=groups)).astype(np.int64)
    if bias is not None:
        accumulator = accumulator + bias
    if np.any(np.abs(accumulator) > arithmetic.clip_limit(OFFSET_BITS)):
        raise OverflowError("an accumulator of the int8 convolution does not fit int32")
    return accumulator * kernel.mantissa.ravel(), kernel.fraction_bits.ravel()


def as_fraction_bits(given: int | Sequence[int], name: str = "fraction_bits") -> int | list[int]:
    """A format as configs keep it: one integer, or a list of one integer per channel.

    Raises:
        ValueError: for anything but integers within +-24.
    """
    array = np.asarray(given)
    if array.ndim > 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} is {given!r}; accepted are an integer and a list of one integer per channel")
    if np.any(np.abs(array) > LARGEST_FRACTION_BITS):
        raise ValueError(
            f"{name} is {given!r}; accepted are integers from -{LARGEST_FRACTION_BITS} to {LARGEST_FRACTION_BITS}"
        )
    return array.tolist()
