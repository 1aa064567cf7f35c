"""The integer arithmetic of larq_clip in NumPy: the reference that Keras layers, converter and runtime agree with.

No TensorFlow here. Images are NHWC with a leading batch axis, binary values are packed bits (1 for -1, 0 for +1),
filters are ``(out_channels, kernel_h, kernel_w, in_channels / groups)``. Everything is exact: integers are int64
inside and rounding happens only where a docstring says so. Fixed-point batch norms, stored tensors and int8 layers are
in `larq_clip.fixed_point`.

The source is Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3; where the text is imprecise
or wrong the docstring says what holds here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 64

IntArray = NDArray[np.integer]
BitArray = NDArray[np.uint8]


# ---- Signs and packing ----------------------------------------------------------------------------------------------


def sign_bits(x: NDArray) -> BitArray:
    """Packed-bit value of each element's sign: 1 where x < 0, else 0.

    sign(x) is +1 for x >= 0, -0.0 included, as Larq's ``ste_sign``; so this is not the float's sign bit.
    """
    return (np.asarray(x) < 0).astype(np.uint8)


def bits_to_signs(bits: BitArray, dtype: np.dtype | type = np.int8) -> NDArray:
    """+1 for bit 0, -1 for bit 1."""
    return (1 - 2 * np.asarray(bits).astype(np.int8)).astype(dtype)


def packed_words(channels: int) -> int:
    """64-bit words that `channels` bits take."""
    return -(-channels // WORD_BITS)


def pack_bits(bits: BitArray) -> NDArray[np.uint64]:
    """Pack the last axis: ``(..., channels)`` of 0 and 1 to ``(..., ceil(channels / 64))`` little-endian words.

    Channel c becomes bit c % 64 of word c // 64; the bits above the last channel are 0.
    """
    bits = np.asarray(bits, np.uint8)
    *leading, channels = bits.shape
    padded = np.zeros((*leading, packed_words(channels) * WORD_BITS), np.uint8)
    padded[..., :channels] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def unpack_bits(words: NDArray[np.uint64], channels: int) -> BitArray:
    """Inverse of `pack_bits`: ``(..., ceil(channels / 64))`` words to ``(..., channels)`` bits."""
    as_bytes = np.ascontiguousarray(words, "<u8").view(np.uint8)
    return np.unpackbits(as_bytes, axis=-1, bitorder="little")[..., :channels]


# ---- Windows --------------------------------------------------------------------------------------------------------


class WindowAxis(NamedTuple):
    """One axis of a convolution or pool: sizes in pixels."""

    size: int
    kernel: int
    stride: int
    dilation: int
    pad_before: int
    out: int

    def taps(self, position: int) -> list[int]:
        """Kernel indices that fall inside the image at an output position."""
        start = position * self.stride - self.pad_before
        return [i for i in range(self.kernel) if 0 <= start + i * self.dilation < self.size]


def window_axis(size: int, kernel: int, stride: int = 1, dilation: int = 1, padding: str = "valid") -> WindowAxis:
    """Place a window as Keras does for padding "valid" and "same".

    Raises:
        ValueError: for another padding, or where a valid window is larger than the image.
    """
    extent = (kernel - 1) * dilation + 1
    if padding == "valid":
        if extent > size:
            raise ValueError(f"a window of {extent} pixels does not fit an image of {size} with padding 'valid'")
        return WindowAxis(size, kernel, stride, dilation, 0, (size - extent) // stride + 1)
    if padding == "same":
        out = -(-size // stride)
        total = max(0, (out - 1) * stride + extent - size)
        return WindowAxis(size, kernel, stride, dilation, total // 2, out)
    raise ValueError(f"padding is {padding!r}; accepted are 'valid' and 'same'")


class WindowTap(NamedTuple):
    """What all windows see at one kernel index: `source` is the input there, for the output pixels out[place]."""

    row: int
    column: int
    place: tuple[slice | NDArray, ...]
    source: NDArray


def window_taps(x: NDArray, axes: tuple[WindowAxis, WindowAxis]) -> Iterator[WindowTap]:
    """The taps over ``(batch, h, w, c)``, in row-major order, for the output pixels where they are inside the image."""
    rows, columns = axes
    for i in range(rows.kernel):
        y = [p for p in range(rows.out) if i in rows.taps(p)]
        for j in range(columns.kernel):
            z = [p for p in range(columns.out) if j in columns.taps(p)]
            if not y or not z:
                continue
            source = x[:, [p * rows.stride - rows.pad_before + i * rows.dilation for p in y]][
                :, :, [p * columns.stride - columns.pad_before + j * columns.dilation for p in z]
            ]
            yield WindowTap(i, j, (slice(None), *np.ix_(y, z)), source)


def window_reduce(
    x: NDArray, axes: tuple[WindowAxis, WindowAxis], step: Callable[[NDArray, NDArray], NDArray], initial: NDArray
) -> NDArray:
    """Fold ``(batch, h, w, c)`` over the pixels of each window that lie inside the image, in row-major tap order."""
    rows, columns = axes
    out = np.broadcast_to(initial, (x.shape[0], rows.out, columns.out, x.shape[3])).copy()
    for _, _, place, source in window_taps(x, axes):
        out[place] = step(out[place], source)
    return out


# ---- Binary accumulator (section 3.3) -------------------------------------------------------------------------------


def binary_conv2d(
    x_bits: BitArray,
    w_bits: BitArray,
    axes: tuple[WindowAxis, WindowAxis],
    pad_value: int = 0,
    groups: int = 1,
) -> NDArray[np.int32]:
    """Exact accumulator a of a binary convolution: the sum of products of signs over all taps.

    Args:
        x_bits: ``(batch, height, width, in_channels)`` of 0 and 1.
        w_bits: ``(out_channels, kernel_h, kernel_w, in_channels / groups)`` of 0 and 1.
        axes: placement of the rows and columns.
        pad_value: what a tap outside the image multiplies: 0, +1 or -1 (padding acts on the quantized input).
        groups: channel groups, as in Keras.

    Returns:
        int32 ``(batch, out_h, out_w, out_channels)``; a = K - 2 popcount(x xor w), |a| <= K. The paper saturates every
        partial sum; that depends on the order of the additions, so here nothing saturates before the end.
    """
    if pad_value not in (-1, 0, 1):
        raise ValueError(f"pad_value is {pad_value!r}; accepted are -1, 0 and 1")
    x, w = bits_to_signs(x_bits, np.float64), bits_to_signs(w_bits, np.float64)
    return convolve(x, w, axes, pad_value, groups).astype(np.int32)


def level_conv2d(
    levels: IntArray,
    w_bits: BitArray,
    axes: tuple[WindowAxis, WindowAxis],
    pad_level: int = 0,
    groups: int = 1,
) -> NDArray[np.int32]:
    """Exact accumulator a of a convolution of inputs m / n with signs: the sum of the products m w over all taps.

    With the planes m = sum over j of 2^j b_j, b_j in {0, 1}, sigma_j = 2 b_j - 1, and C the sum of w over all taps,
    a = (sum over j of 2^j (sum of sigma_j w) + n C) / 2, which is as many binary convolutions as m has bits. Unlike a
    sum of signs, a may be even or odd at any pixel.

    Args:
        levels: m ``(batch, height, width, in_channels)``, 0 to n = 2^k - 1.
        w_bits: ``(out_channels, kernel_h, kernel_w, in_channels / groups)`` of 0 and 1.
        axes: placement of the rows and columns.
        pad_level: m of a tap outside the image, 0 or n.
        groups: channel groups, as in Keras.

    Returns:
        int32 ``(batch, out_h, out_w, out_channels)``, |a| <= n K.
    """
    return convolve(levels, bits_to_signs(w_bits, np.float64), axes, pad_level, groups).astype(np.int32)


def convolve(
    x: NDArray, w: NDArray, axes: tuple[WindowAxis, WindowAxis], pad_value: int = 0, groups: int = 1
) -> NDArray[np.float64]:
    """Sum of products over all taps, of integers: float64, exact while sums of magnitudes stay below 2^53.

    Args:
        x: ``(batch, height, width, in_channels)``.
        w: ``(out_channels, kernel_h, kernel_w, in_channels / groups)``.
        axes: placement of the rows and columns.
        pad_value: what a tap outside the image multiplies.
        groups: channel groups, as in Keras.
    """
    rows, columns = axes
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)  # BLAS has no integers
    batch = x.shape[0]
    out_channels, in_per_group = w.shape[0], w.shape[3]
    below = (rows.out - 1) * rows.stride + (rows.kernel - 1) * rows.dilation + 1 - rows.size - rows.pad_before
    right = (
        (columns.out - 1) * columns.stride
        + (columns.kernel - 1) * columns.dilation
        + 1
        - columns.size
        - columns.pad_before
    )
    pads = ((0, 0), (rows.pad_before, max(0, below)), (columns.pad_before, max(0, right)), (0, 0))
    x = np.pad(x, pads, constant_values=float(pad_value))
    total = np.zeros((batch, rows.out, columns.out, out_channels))
    per_group = out_channels // groups
    for i in range(rows.kernel):
        y = slice(i * rows.dilation, i * rows.dilation + (rows.out - 1) * rows.stride + 1, rows.stride)
        for j in range(columns.kernel):
            z = slice(
                j * columns.dilation, j * columns.dilation + (columns.out - 1) * columns.stride + 1, columns.stride
            )
            for g in range(groups):
                source = x[:, y, z, g * in_per_group : (g + 1) * in_per_group]
                outputs = slice(g * per_group, (g + 1) * per_group)
                total[..., outputs] += source @ w[outputs, i, j].T
    return total


# ---- Clip (Algorithm 1, line 7) -------------------------------------------------------------------------------------


def clip_limit(bits: int) -> int:
    """Largest magnitude of a symmetric `bits`-bit integer: 127 for 8."""
    return 2 ** (bits - 1) - 1


def step_exponent(step: float) -> int:
    """log2 of a power of two.

    Raises:
        ValueError: where `step` is not a positive power of two.
    """
    mantissa, exponent = np.frexp(step) if np.isfinite(step) else (0.0, 0)
    if step <= 0 or mantissa != 0.5:
        raise ValueError(f"step is {step!r}; accepted are the powers of two: 1, 2, 4, 8, ...")
    return int(exponent) - 1


def clip_accumulator(a: IntArray, bits: int = 8, step: float = 1) -> NDArray[np.int32]:
    """q = clip(floor(a / step + 1/2), +-(2^(bits-1) - 1)); it stands for the value step * q.

    step = 1 is the paper's clip. Rounding is half up, what a rounding shift does; saturation happens once, here.
    """
    exponent = step_exponent(step)
    a = np.asarray(a, np.int64)
    rounded = (a + (1 << (exponent - 1))) >> exponent if exponent > 0 else a << -exponent
    limit = clip_limit(bits)
    return np.clip(rounded, -limit, limit).astype(np.int32)


# ---- Thresholds (equation 2) ----------------------------------------------------------------------------------------


class Thresholds(NamedTuple):
    """Per channel: +1 <=> (v > threshold) xor invert.

    A threshold below the domain is 'always', the domain's largest value is 'never'.
    """

    threshold: IntArray
    invert: BitArray


def threshold_bits(v: IntArray, thresholds: Thresholds) -> BitArray:
    """Packed-bit values (1 for -1) of ``(..., channels)`` integers."""
    return ((v <= thresholds.threshold) ^ thresholds.invert.astype(bool)).astype(np.uint8)


PARTS = 16  # into which `find_thresholds` divides a domain


def _between(low: IntArray, high: IntArray) -> IntArray:
    """The integers that divide each [low, high] into `PARTS`, ``(PARTS - 1, channels)``, rounded down."""
    width = high.astype(np.uint64) - low.astype(np.uint64)  # up to 2^63; a difference of wrapped numbers is right
    part = np.arange(1, PARTS, dtype=np.uint64)[:, None]
    offset = width // np.uint64(PARTS) * part + width % np.uint64(PARTS) * part // np.uint64(PARTS)
    return (low.astype(np.uint64) + offset).astype(np.int64)


def find_thresholds(lowest: int, highest: int, channels: int, sign_of: Callable[[IntArray], BitArray]) -> Thresholds:
    """Where the sign of a monotone function of an integer in [lowest, highest] flips, per channel.

    `sign_of` takes ``(n, channels)`` integers and returns the packed-bit values of the function's signs. The function
    may rise or fall, per channel; -1 on ties is up to it. Bisection into 16 parts: about log16(highest - lowest) calls
    with 15 integers a channel, since what a call costs beside its numbers is most of it. The thresholds are int32, or
    int64 where the domain, within +-2^62, is wider.

    Equation 2 of the paper has the sign of its second line the wrong way round: for gamma < 0, +1 <=> a <= tau.
    """
    ends = sign_of(np.repeat([[lowest], [highest]], channels, axis=1))
    bit_low, bit_high = ends[0].astype(bool), ends[1].astype(bool)
    low = np.full(channels, lowest, np.int64)  # the sign here is bit_low
    high = np.full(channels, highest, np.int64)  # and here bit_high, where the two differ
    while np.any(low + 1 < high):
        points = np.vstack([low, _between(low, high), high])
        same = sign_of(points[1:-1]).astype(bool) == bit_low
        first = np.argmin(np.vstack([same, np.zeros(channels, bool)]), axis=0)  # that is not the same
        low, high = (np.take_along_axis(points, place[None], 0)[0] for place in (first, first + 1))
    constant = bit_low == bit_high
    # +1 <=> v > threshold where bits fall from 1 to 0 as v rises; the other direction is inverted.
    invert = ~bit_low & bit_high
    threshold = np.where(constant, np.where(bit_low, highest, lowest - 1), low)
    narrow = lowest > np.iinfo(np.int32).min and highest <= np.iinfo(np.int32).max
    return Thresholds(threshold.astype(np.int32 if narrow else np.int64), invert.astype(np.uint8))


def float_order(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Integers in the order of the finite float32 numbers, one apart for neighbours; -0.0 and 0.0 are both 0."""
    raw = np.asarray(x, np.float32).view(np.int32).astype(np.int64)
    return np.where(raw < 0, -(raw & 0x7FFFFFFF), raw)


def float_from_order(order: IntArray) -> NDArray[np.float32]:
    """Inverse of `float_order`."""
    order = np.asarray(order, np.int64)
    magnitude = np.abs(order).astype(np.uint32).view(np.float32)
    return np.where(order < 0, -magnitude, magnitude).astype(np.float32)


class FloatThresholds(NamedTuple):
    """Per channel: +1 <=> (x >= threshold) xor invert; -inf is 'always', +inf is 'never'."""

    threshold: NDArray[np.float32]
    invert: BitArray


def float_threshold_bits(x: NDArray[np.float32], thresholds: FloatThresholds) -> BitArray:
    """Packed-bit values (1 for -1) of ``(..., channels)`` float32 numbers."""
    return (~(x >= thresholds.threshold) ^ thresholds.invert.astype(bool)).astype(np.uint8)


LARGEST_FLOAT = float(np.finfo(np.float32).max)


def find_float_thresholds(
    channels: int, sign_of: Callable[[NDArray[np.float32]], BitArray], largest: float = LARGEST_FLOAT
) -> FloatThresholds:
    """`find_thresholds` for a monotone function of a float32 in [-largest, largest]: exact to the last bit.

    Where the sign does not flip in there, the threshold is infinite.
    """
    limit = int(float_order(np.array(largest, np.float32)))
    found = find_thresholds(-limit, limit, channels, lambda order: sign_of(float_from_order(order)))
    tau = float_from_order(np.minimum(found.threshold.astype(np.int64) + 1, limit))
    tau = np.where(found.threshold < -limit, -np.inf, np.where(found.threshold >= limit, np.inf, tau))
    return FloatThresholds(tau.astype(np.float32), found.invert)


def bit_max_pool2d(bits: BitArray, axes: tuple[WindowAxis, WindowAxis], invert: BitArray | None = None) -> BitArray:
    """Packed-bit value of the window's largest sign: AND of bits (1 for -1), then xor `invert` per channel.

    A max pool between a convolution and the sign of its batch norm: sign(BN(max a)) is this AND over the
    bits of the threshold *before* its inversion, then the inversion, since for gamma < 0 BN(max a) is the smallest.
    """
    pooled = window_reduce(np.asarray(bits, np.uint8), axes, np.bitwise_and, np.ones((), np.uint8))
    return pooled if invert is None else pooled ^ invert
