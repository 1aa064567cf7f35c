"""The ops of the IR. Each is a frozen node that names its input and output tensors and can evaluate itself.

An evaluator takes the input arrays with a leading batch axis, and the tensors that describe inputs and outputs; bits
are unpacked, 1 for -1. Integer arithmetic is that of `larq_clip.arithmetic` and `larq_clip.fixed_point`, float
arithmetic that of `ir.floats`. The ops of fixed-point models are in `ir.integer_ops`, those of several float inputs and
functions of numbers in `ir.float_ops`, those that move elements and compute nothing in `ir.layout_ops`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip.converter.ir import floats
from larq_clip.converter.ir.fixed_point import FixedPoint, store_mean
from larq_clip.converter.ir.tensors import DType, Tensor, Window, image_shape, values

Floats = NDArray[np.float32]


def as_images(x: NDArray, tensor: Tensor) -> NDArray:
    """``(batch, height, width, channels)``."""
    return x.reshape(x.shape[0], *image_shape(tensor.shape))


def like(x: NDArray, tensor: Tensor) -> NDArray:
    """``(batch, ...)`` in the shape and type of a tensor."""
    return x.reshape(x.shape[0], *tensor.shape).astype(tensor.dtype.numpy, copy=False)


def window_pixels(axes: tuple[arithmetic.WindowAxis, arithmetic.WindowAxis]) -> NDArray[np.int64]:
    """How many pixels of each window lie inside the image, ``(out_h, out_w)``."""
    rows, columns = ([len(axis.taps(place)) for place in range(axis.out)] for axis in axes)
    return np.outer(rows, columns).astype(np.int64)


@dataclass(frozen=True)
class Activation:
    """What a float op applies last: min(max(y, low), high); an end that is infinite does not limit.

    The ends are rounded to float32. ``Activation()`` does nothing, ``Activation(0)`` is relu, ``Activation(0, 6)`` is
    ReLU6.

    Raises:
        ValueError: where the ends are NaN, or no finite number lies between them.
    """

    low: float = -math.inf
    high: float = math.inf

    NONE: ClassVar[Activation]
    RELU: ClassVar[Activation]

    def __post_init__(self) -> None:
        low, high = float(np.float32(self.low)), float(np.float32(self.high))
        if not (low <= high and low < math.inf and high > -math.inf):
            raise ValueError(f"an activation clips to {self.low} to {self.high}; accepted are a low end and a high one")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def __call__(self, x: Floats) -> Floats:
        if self == Activation.NONE:
            return x
        return np.minimum(np.maximum(x, np.float32(self.low)), np.float32(self.high))


Activation.NONE = Activation()
Activation.RELU = Activation(0.0)


class Epilogue(enum.IntEnum):
    """What becomes of a binary accumulator; the numbers are those of the file."""

    ACCUMULATOR = -1  # int32, as it is: imported graphs only
    THRESHOLD = 0
    CLIP = 1
    AFFINE = 2
    FIXED_POINT = 3


@dataclass(frozen=True, eq=False)
class Op:
    """A node. `name` joins, with '+', the names of the Keras layers that it came from."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def input(self) -> str:
        return self.inputs[0]

    @property
    def output(self) -> str:
        return self.outputs[0]

    @property
    def type(self) -> str:
        return type(self).__name__

    def evaluate(
        self, arrays: Sequence[NDArray], sources: Sequence[Tensor], results: Sequence[Tensor]
    ) -> list[NDArray]:
        """Output arrays of input arrays, all with a leading batch axis."""
        raise NotImplementedError(f"{self.type} has no evaluator")


@dataclass(frozen=True, eq=False)
class UnaryOp(Op):
    """A node with one input and one output."""

    def evaluate(
        self, arrays: Sequence[NDArray], sources: Sequence[Tensor], results: Sequence[Tensor]
    ) -> list[NDArray]:
        (x,), (source,), (result,) = arrays, sources, results
        return [self.compute(x, source, result)]

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        """Output array of an input array, both with a leading batch axis."""
        raise NotImplementedError(f"{self.type} has no evaluator")


def join_names(*ops: Op) -> str:
    """Name of a fused op: the layers' names once each, joined by '+', without the ``:input`` quantizers."""
    parts = dict.fromkeys(part for op in ops for part in op.name.split("+"))
    layers = [part for part in parts if ":" not in part]
    return "+".join(layers or parts)


# ---- Binary ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BinaryConv2D(Op):
    """Binary convolution: exact accumulator a = K - 2 popcount(x xor w), then an epilogue.

    v = a where `clip_limit` is 0, else clip(floor(a / 2^step_log2 + 1/2), +-clip_limit), which stands for
    v * 2^step_log2. Epilogues: ACCUMULATOR int32 a; THRESHOLD bit, +1 <=> (v > thresholds) xor invert; CLIP int8 v;
    AFFINE float32 round(round(multiplier * v * 2^step_log2) + offset); FIXED_POINT: `fixed_point` from y = v, which may
    read further inputs and has one output a store. Paper: section 3.3, Algorithm 1, equation 2.

    Attributes:
        weights: bits ``(out_channels, kernel_h, kernel_w, in_channels / groups)``.
        thresholds: int8, int16 or int32 ``(out_channels,)``.
        invert: bits ``(out_channels,)``, none where no channel is inverted.
    """

    window: Window
    weights: NDArray[np.uint8] = field(repr=False)
    groups: int = 1
    pad_value: int = 0
    clip_limit: int = 0
    step_log2: int = 0
    epilogue: Epilogue = Epilogue.ACCUMULATOR
    thresholds: NDArray[np.integer] | None = field(default=None, repr=False)
    invert: NDArray[np.uint8] | None = field(default=None, repr=False)
    multiplier: Floats | None = field(default=None, repr=False)
    offset: Floats | None = field(default=None, repr=False)
    fixed_point: FixedPoint | None = field(default=None, repr=False)

    @property
    def out_channels(self) -> int:
        return self.weights.shape[0]

    @property
    def k(self) -> int:
        """K: products that meet in an accumulator whose taps are all inside the image; |a| <= K."""
        return int(np.prod(self.weights.shape[1:]))

    def evaluate(
        self, arrays: Sequence[NDArray], sources: Sequence[Tensor], results: Sequence[Tensor]
    ) -> list[NDArray]:
        x, source, result = arrays[0], sources[0], results[0]
        axes = self.window.axes(source.shape, result.shape)
        v = arithmetic.binary_conv2d(as_images(x, source), self.weights, axes, self.pad_value, self.groups)
        step = 1.0
        if self.clip_limit:
            step = 2.0**self.step_log2
            v = arithmetic.clip_accumulator(v, clip_bits(self.clip_limit), step)
        if self.fixed_point is not None:
            return self.fixed_point.evaluate(v, arrays, results)
        return [self._written(v, step, result)]

    def _written(self, v: NDArray, step: float, result: Tensor) -> NDArray:
        if self.epilogue is Epilogue.THRESHOLD:
            assert self.thresholds is not None
            rule = arithmetic.Thresholds(self.thresholds.astype(np.int32), _mask(self.invert, result))
            return like(arithmetic.threshold_bits(v, rule), result)
        if self.epilogue is Epilogue.AFFINE:
            numbers = v.astype(np.float32) * np.float32(step)
            return like(floats.affine(numbers, self.multiplier, self.offset), result)
        return like(v, result)


def clip_bits(limit: int) -> int:
    """Width in bits of a clip to +-limit, limit = 2^(bits - 1) - 1."""
    return (limit + 1).bit_length()


def _mask(invert: NDArray[np.uint8] | None, tensor: Tensor) -> NDArray[np.uint8]:
    return np.zeros(tensor.channels, np.uint8) if invert is None else invert


@dataclass(frozen=True, eq=False)
class AccumulatorClip(UnaryOp):
    """q = clip(floor(a / 2^step_log2 + 1/2), +-limit) of an int32 accumulator (Algorithm 1, line 7).

    The output counts as q * 2^step_log2: it is int8 or int16 with that many negative fraction bits, or, where limit is
    above 127, float32 holding the product.
    """

    limit: int
    step_log2: int = 0

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        q = arithmetic.clip_accumulator(x, clip_bits(self.limit), 2.0**self.step_log2)
        if result.dtype is DType.FLOAT32:
            return q.astype(np.float32) * np.float32(2.0**self.step_log2)
        return like(q, result)


@dataclass(frozen=True, eq=False)
class Bitpack(UnaryOp):
    """Sign of a tensor, as bits, or the bit planes of its levels.

    float32: +1 <=> (x >= thresholds[c]) xor invert[c], thresholds 0 where none. Integers: +1 <=> (q > thresholds[c])
    xor invert[c], thresholds -1 where none. Without thresholds it is Larq's ``ste_sign``. An int32 accumulator has
    float32 thresholds, since it is stored as float32 in the file.

    With k = 2 or 3 outputs: of the level n = the number of i with x >= thresholds[i, c] (q > for integers), output j is
    +1 <=> (bit j of n is 1) xor invert[c]. So invert turns n into 2^k - 1 - n.

    Attributes:
        thresholds: ``(channels,)``, of k outputs ``(2^k - 1, channels)``, ascending.
        invert: bits ``(channels,)``.
    """

    thresholds: NDArray | None = field(default=None, repr=False)
    invert: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def is_plain_sign(self) -> bool:
        """Whether it is the sign alone: no thresholds, nothing inverted."""
        return self.thresholds is None and self.invert is None

    def evaluate(
        self, arrays: Sequence[NDArray], sources: Sequence[Tensor], results: Sequence[Tensor]
    ) -> list[NDArray]:
        if len(results) == 1:
            return super().evaluate(arrays, sources, results)
        assert self.thresholds is not None
        invert = _mask(self.invert, sources[0])
        below = [_signs(arrays[0], sources[0], row, np.zeros_like(invert)) for row in self.thresholds]
        level = len(below) - np.sum(below, 0, np.int64)
        return [(1 - (level >> j & 1) ^ invert).astype(np.uint8) for j in range(len(results))]

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        return _signs(x, source, self.thresholds, _mask(self.invert, result))


def _signs(x: NDArray, source: Tensor, thresholds: NDArray | None, invert: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if source.dtype in (DType.FLOAT32, DType.INT32):
        tau = np.zeros(source.channels, np.float32) if thresholds is None else thresholds
        return arithmetic.float_threshold_bits(x, arithmetic.FloatThresholds(tau, invert))
    limits = np.full(source.channels, -1) if thresholds is None else thresholds
    return arithmetic.threshold_bits(x, arithmetic.Thresholds(limits, invert))


@dataclass(frozen=True, eq=False)
class BitMaxPool2D(UnaryOp):
    """Largest sign in a window: AND of the bits (1 for -1) inside the image, then xor invert[c]."""

    window: Window
    invert: NDArray[np.uint8] | None = field(default=None, repr=False)

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        axes = self.window.axes(source.shape, result.shape)
        return like(arithmetic.bit_max_pool2d(as_images(x, source), axes, self.invert), result)


@dataclass(frozen=True, eq=False)
class Unpack(UnaryOp):
    """+1.0 or -1.0 of a bit."""

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        return values(x, source)


# ---- Numbers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Conv2D(UnaryOp):
    """float32 convolution with zero padding, then the activation; a dense layer is 1x1 over one pixel, a depthwise one
    has as many groups as input channels.

    Attributes:
        weights: ``(kernel_h, kernel_w, in_channels / groups, out_channels)``.
        bias: ``(out_channels,)``.
    """

    window: Window
    weights: Floats = field(repr=False)
    bias: Floats | None = field(default=None, repr=False)
    activation: Activation = Activation.NONE
    groups: int = 1

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        axes = self.window.axes(source.shape, result.shape)
        y = floats.conv2d(as_images(x, source), self.weights, axes, self.bias, self.groups)
        return like(self.activation(y), result)

    def exact(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray[np.float64]:
        """The output in float64: what the constants say, without the rounding of sums."""
        axes = self.window.axes(source.shape, result.shape)
        y = arithmetic.convolve(as_images(x, source), self.weights.transpose(3, 0, 1, 2), axes, groups=self.groups)
        y = y if self.bias is None else y + self.bias
        return np.clip(y, self.activation.low, self.activation.high).reshape(-1, *result.shape)


@dataclass(frozen=True, eq=False)
class BatchNorm(UnaryOp):
    """Batch normalization with its moving statistics, to float32: gamma / sqrt(variance + epsilon) per channel.

    `fused` says which of TensorFlow's two formulas rounds: (x - mean) * scale + beta for images, and
    x * scale + (beta - mean * scale) for vectors. The last bit of either depends on the machine's instructions, so
    where `keras` is given, it is the specification: it evaluates the actual Keras layer on float32.
    """

    gamma: Floats = field(repr=False)
    beta: Floats = field(repr=False)
    mean: Floats = field(repr=False)
    variance: Floats = field(repr=False)
    epsilon: float
    fused: bool = True
    keras: Callable[[Floats], Floats] | None = field(default=None, repr=False)

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        numbers = values(x, source)
        if self.keras is not None:
            return self.keras(numbers)
        scale = self.gamma / np.sqrt(self.variance + np.float32(self.epsilon))
        if self.fused:
            return (numbers - self.mean) * scale + self.beta
        return numbers * scale + (self.beta - self.mean * scale)


@dataclass(frozen=True, eq=False)
class Affine(UnaryOp):
    """round(round(multiplier[c] * x) + offset[c]) in float32, then the activation; an integer counts as q * 2^-f.

    Attributes:
        multiplier: float32 ``(channels,)``, 1 where none.
        offset: float32 ``(channels,)``, 0 where none.
        largest_sum: in imported graphs, of a sum of integers that Keras multiplies first, product by product, and then
            sums in float32: the largest that it can be. It says how Keras rounds and changes nothing; 0 elsewhere.
    """

    multiplier: Floats | None = field(default=None, repr=False)
    offset: Floats | None = field(default=None, repr=False)
    activation: Activation = Activation.NONE
    largest_sum: int = 0

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        return self.activation(floats.affine(values(x, source), self.multiplier, self.offset))


@dataclass(frozen=True, eq=False)
class MaxPool2D(UnaryOp):
    """Largest number over the window's pixels inside the image."""

    window: Window

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        axes = self.window.axes(source.shape, result.shape)
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        pooled = arithmetic.window_reduce(as_images(x, source), axes, np.maximum, np.asarray(lowest, x.dtype))
        return like(pooled, result)


@dataclass(frozen=True, eq=False)
class AveragePool2D(UnaryOp):
    """Mean over the window's pixels inside the image.

    float32, or integers to int8 or int16, exactly: with n pixels and fraction bits f of the input and g of the output
    clip(floor(2^(g - f) sum / n + 1/2), +-127 or +-32767).
    """

    window: Window

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        axes = self.window.axes(source.shape, result.shape)
        if result.dtype is not DType.FLOAT32:
            total = arithmetic.window_reduce(as_images(x, source), axes, np.add, np.zeros((), np.int64))
            limit = arithmetic.clip_limit(8 * result.dtype.numpy.itemsize)
            shift = result.scale_bits - source.scale_bits
            return like(store_mean(total, window_pixels(axes), shift, limit), result)
        return like(floats.average_pool2d(as_images(values(x, source), source), axes, window_pixels(axes)), result)


@dataclass(frozen=True, eq=False)
class Reshape(UnaryOp):
    """The same elements in the same order under the output's shape."""

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        return like(x, result)
