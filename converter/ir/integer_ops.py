"""The ops of fixed-point models: int8 convolutions, sums, stored tensors (`larq_clip.fixed_point`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic, fixed_point
from larq_clip.converter.ir.fixed_point import FixedPoint, shift_store
from larq_clip.converter.ir.ops import Affine, Op, UnaryOp, Unpack, as_images, like
from larq_clip.converter.ir.tensors import DType, Tensor, Window


@dataclass(frozen=True, eq=False)
class Int8Conv2D(Op):
    """int8 convolution with zero padding: y = the sum of w x over the taps plus bias[c], then `fixed_point`.

    A dense layer is 1x1 over one pixel, a depthwise one has as many groups as input channels. In imported graphs the
    output may be int64: y after the steps. Further inputs are operands of the steps.

    Attributes:
        weights: int8 ``(out_channels, kernel_h, kernel_w, in_channels / groups)``.
        bias: int32 ``(out_channels,)``.
    """

    window: Window
    weights: NDArray[np.int8] = field(repr=False)
    groups: int = 1
    bias: NDArray[np.int32] | None = field(default=None, repr=False)
    fixed_point: FixedPoint = field(default=FixedPoint(), repr=False)

    @property
    def largest_sum(self) -> NDArray[np.int64]:
        """The largest magnitude that a sum of each output channel can reach, bias included."""
        products = 128 * np.abs(self.weights.astype(np.int64)).sum((1, 2, 3))
        return products if self.bias is None else products + np.abs(self.bias.astype(np.int64))

    def evaluate(
        self, arrays: Sequence[NDArray], sources: Sequence[Tensor], results: Sequence[Tensor]
    ) -> list[NDArray]:
        axes = self.window.axes(sources[0].shape, results[0].shape)
        x = as_images(arrays[0], sources[0])
        y = np.rint(arithmetic.convolve(x, self.weights, axes, groups=self.groups)).astype(np.int64)
        return self.fixed_point.evaluate(y if self.bias is None else y + self.bias, arrays, results)


@dataclass(frozen=True, eq=False)
class Elementwise(Op):
    """`fixed_point` of each element, from y = q of the first input; all inputs and outputs have the same shape.

    In imported graphs inputs and outputs may be int64.
    """

    fixed_point: FixedPoint = field(default=FixedPoint(), repr=False)

    def evaluate(
        self, arrays: Sequence[NDArray], sources: Sequence[Tensor], results: Sequence[Tensor]
    ) -> list[NDArray]:
        return self.fixed_point.evaluate(arrays[0], arrays, results)

    @property
    def only_stores(self) -> bool:
        """Whether it has no steps, so that it rounds its input and does nothing else."""
        return not self.fixed_point.steps


@dataclass(frozen=True, eq=False)
class Quantize(UnaryOp):
    """clip(floor(x 2^f[c] + 1/2), +-127 or +-32767) of float32, exactly, f the output's fraction bits."""

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        return like(fixed_point.store_reals(x, result.scale_bits, 8 * result.dtype.numpy.itemsize), result)


def to_float(name: str, source: Tensor, result: str) -> Op:
    """The op from bits or integers to the same numbers in float32, rounded once.

    Raises:
        OverflowError: where the integers have more than 62 fraction bits.
    """
    if source.dtype is DType.BIT:
        return Unpack(name, (source.name,), (result,))
    if source.dtype is DType.INT32 or (source.dtype is DType.INT8 and len(source.fraction_bits) <= 1):
        return Affine(name, (source.name,), (result,))
    return Elementwise(name, (source.name,), (result,), FixedPoint((), (shift_store(source.scale_bits),)))
