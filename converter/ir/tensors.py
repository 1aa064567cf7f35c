"""Tensors of the IR: names, types and shapes, and the window that convolutions and pools move over an image."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from larq_clip.arithmetic import WindowAxis, packed_words, window_axis

Shape = tuple[int, ...]


class DType(enum.IntEnum):
    """Type of a tensor or constant; the numbers are those of the file."""

    BIT = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    FLOAT32 = 4
    INT64 = 5  # exact integers of imported graphs, and constants

    @property
    def numpy(self) -> np.dtype:
        """Type of the NumPy array that holds such a tensor while evaluating; bits are unpacked, one a byte."""
        return np.dtype(("u1", "<i1", "<i2", "<i4", "<f4", "<i8")[self])

    def stored_bytes(self, shape: Shape) -> int:
        """Bytes of a tensor of this type in the arena; the last axis of bits is packed into words."""
        if self is DType.BIT:
            return count(shape[:-1]) * packed_words(shape[-1]) * 8
        return count(shape) * self.numpy.itemsize


INTEGERS = (DType.INT8, DType.INT16, DType.INT32, DType.INT64)
STORED = (DType.INT8, DType.INT16)  # integers that live in memory between two ops of a file


def count(shape: Shape) -> int:
    """Product of the axes."""
    product = 1
    for axis in shape:
        product *= axis
    return product


def image_shape(shape: Shape) -> tuple[int, int, int]:
    """``(height, width, channels)``; ``(channels,)`` is an image of one pixel, ``(length, channels)`` one of one row.

    Raises:
        ValueError: for another number of axes.
    """
    if not 1 <= len(shape) <= 3:
        raise ValueError(f"shape {shape} has {len(shape)} axes; accepted are 1 to 3, without the batch")
    height, width, channels = (1,) * (3 - len(shape)) + shape
    return (height, width, channels)


@dataclass(frozen=True)
class Tensor:
    """A value between two ops.

    Attributes:
        name: unique in its graph. For a Keras layer X: ``X:input`` is its quantized input, ``X:accumulator`` the raw
            accumulator, ``X:clipped`` what is left after the clip, and ``X`` the layer's output (the last of these).
        dtype: type of its elements.
        shape: ``(height, width, channels)``, ``(length, channels)`` or ``(channels,)``, without the batch.
        fraction_bits: f of integers q that stand for q * 2^-f: none (0), one, or one per channel.
    """

    name: str
    dtype: DType
    shape: Shape
    fraction_bits: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def scale_bits(self) -> NDArray[np.int64]:
        """Fraction bits of every channel."""
        return np.broadcast_to(np.asarray(self.fraction_bits or 0, np.int64), (self.channels,))

    def has_format(self, dtype: DType, scale_bits: NDArray[np.integer]) -> bool:
        """Whether it has a type and, channel by channel, these fraction bits."""
        return self.dtype is dtype and bool(np.all(self.scale_bits == scale_bits))

    def reshaped(self, name: str, shape: Shape) -> Tensor:
        """The same elements in another shape, whose channels repeat those of this tensor."""
        bits = self.fraction_bits
        return Tensor(name, self.dtype, shape, bits * (shape[-1] // len(bits)) if len(bits) > 1 else bits)

    @property
    def stored_bytes(self) -> int:
        """Bytes of one image in the arena."""
        return self.dtype.stored_bytes(self.shape)


def shortest(scale_bits: NDArray[np.integer]) -> tuple[int, ...]:
    """Fraction bits by channel as a tensor keeps them: one integer where all are equal."""
    bits = tuple(int(f) for f in scale_bits)
    return bits[:1] if len(set(bits)) == 1 else bits


def values(array: NDArray, tensor: Tensor) -> NDArray[np.float32]:
    """The numbers that a tensor's elements stand for, as float32: q * 2^-f for integers, rounded once to
    nearest, +1 or -1 for bits."""
    if tensor.dtype is DType.BIT:
        return np.float32(1) - np.float32(2) * array.astype(np.float32)
    numbers = array.astype(np.float32)
    return np.ldexp(numbers, -np.asarray(tensor.fraction_bits, np.int32)) if tensor.fraction_bits else numbers


@dataclass(frozen=True)
class Window:
    """Position of a kernel over an image: output pixel (y, x) sees, at tap (i, j), the input pixel
    (y * stride_h - pad_top + i * dilation_h, x * stride_w - pad_left + j * dilation_w)."""

    kernel_h: int = 1
    kernel_w: int = 1
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    pad_top: int = 0
    pad_left: int = 0

    @classmethod
    def place(
        cls,
        shape: Shape,
        kernel: tuple[int, int],
        strides: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: str = "valid",
    ) -> tuple[Window, tuple[int, int]]:
        """The window that Keras places over an image of `shape`, and ``(height, width)`` of the output.

        Raises:
            ValueError: see `larq_clip.arithmetic.window_axis`.
        """
        height, width, _ = image_shape(shape)
        rows = window_axis(height, kernel[0], strides[0], dilation[0], padding)
        columns = window_axis(width, kernel[1], strides[1], dilation[1], padding)
        window = cls(*kernel, *strides, *dilation, rows.pad_before, columns.pad_before)
        return window, (rows.out, columns.out)

    def axes(self, source: Shape, result: Shape) -> tuple[WindowAxis, WindowAxis]:
        """Rows and columns for `larq_clip.arithmetic`, between an input and an output shape."""
        (height, width, _), (out_h, out_w, _) = image_shape(source), image_shape(result)
        return (
            WindowAxis(height, self.kernel_h, self.stride_h, self.dilation_h, self.pad_top, out_h),
            WindowAxis(width, self.kernel_w, self.stride_w, self.dilation_w, self.pad_left, out_w),
        )

    @property
    def taps(self) -> int:
        """Pixels of the kernel."""
        return self.kernel_h * self.kernel_w
