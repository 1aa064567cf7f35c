"""Ops that move elements and compute nothing: joins, regions, blocks of channels that become pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from larq_clip.converter.ir.ops import Op, UnaryOp, as_images, like
from larq_clip.converter.ir.tensors import DType, Tensor, image_shape


@dataclass(frozen=True, eq=False)
class Concatenate(Op):
    """The inputs' channels one after the other; int8 may become int16."""

    def evaluate(
        self, arrays: Sequence[NDArray], sources: Sequence[Tensor], results: Sequence[Tensor]
    ) -> list[NDArray]:
        return [like(np.concatenate(arrays, axis=-1), results[0])]


@dataclass(frozen=True, eq=False)
class Slice(UnaryOp):
    """A region of an image, which may reach beyond it: element (y, x, c) is input element (y + begin_h, x + begin_w,
    c + begin_c) where there is one, else `value`; the result's shape is its size.

    Negative begins pad, positive ones crop. `value` is the number of float32, the q of integers, and -1 or +1 of bits.
    """

    begin_h: int = 0
    begin_w: int = 0
    begin_c: int = 0
    value: float = 0.0

    def overlaps(self, source: Tensor, result: Tensor) -> list[tuple[int, int]]:
        """First and end index, in the result, of the rows, columns and channels that lie inside the input."""
        axes = zip((self.begin_h, self.begin_w, self.begin_c), image_shape(source.shape), image_shape(result.shape))
        return [(min(max(0, -begin), out), max(0, min(out, size - begin))) for begin, size, out in axes]

    def fills(self, source: Tensor, result: Tensor) -> bool:
        """Whether an element of the result lies outside the input."""
        return any(ends != (0, out) for ends, out in zip(self.overlaps(source, result), image_shape(result.shape)))

    def only_pads(self, source: Tensor, result: Tensor) -> bool:
        """Whether it puts zeros around the image's rows and columns, and leaves nothing out."""
        sizes = image_shape(source.shape)
        kept = all(end - first == size for (first, end), size in zip(self.overlaps(source, result), sizes))
        return kept and self.value == 0 and source.channels == result.channels

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        fill = self.value < 0 if source.dtype is DType.BIT else self.value
        y = np.full((len(x), *image_shape(result.shape)), fill, x.dtype)
        inside = self.overlaps(source, result)
        if all(first < end for first, end in inside):
            begins = (self.begin_h, self.begin_w, self.begin_c)
            rows, columns, channels = (slice(first, end) for first, end in inside)
            of_rows, of_columns, of_channels = (slice(f + b, e + b) for (f, e), b in zip(inside, begins))
            y[:, rows, columns, channels] = as_images(x, source)[:, of_rows, of_columns, of_channels]
        return like(y, result)


@dataclass(frozen=True, eq=False)
class DepthToSpace(UnaryOp):
    """Channels become pixels: element (y, x, c) is input element (y / block_h, x / block_w, ((y mod block_h) block_w +
    x mod block_w) channels + c), quotients rounded down."""

    block_h: int = 1
    block_w: int = 1

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        height, width, _ = image_shape(source.shape)
        blocks = x.reshape(len(x), height, width, self.block_h, self.block_w, result.channels)
        return like(blocks.transpose(0, 1, 3, 2, 4, 5), result)


@dataclass(frozen=True, eq=False)
class SelectChannels(UnaryOp):
    """Channel c is channel `channels[c]` of the input, or zeros where that is -1; int8, in imported graphs only."""

    channels: NDArray[np.int64] = field(repr=False)

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        return like(np.where(self.channels < 0, 0, x[..., self.channels]), result)
