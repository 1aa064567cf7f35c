"""Constants as the file holds them: little-endian, row-major, the last axis of bits packed into 64-bit words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from larq_clip.arithmetic import pack_bits, unpack_bits
from larq_clip.converter.ir import DType


def constant_dtype(array: NDArray, *, bits: bool) -> DType:
    """The file's type of a NumPy constant; uint8 arrays of 0 and 1 stand for bits.

    Raises:
        ValueError: for an array of another type.
    """
    if bits:
        return DType.BIT
    for dtype in (DType.INT8, DType.INT16, DType.INT32, DType.INT64, DType.FLOAT32):
        if array.dtype == dtype.numpy:
            return dtype
    raise ValueError(f"a constant is of type {array.dtype}; accepted are int8 to int64 and float32")


def pack_constant(array: NDArray, dtype: DType) -> bytes:
    """Bytes of a constant."""
    if dtype is DType.BIT:
        return pack_bits(array).astype("<u8", copy=False).tobytes()
    return np.ascontiguousarray(array, dtype.numpy).tobytes()


def unpack_constant(data: bytes | memoryview, dtype: DType, shape: tuple[int, ...]) -> NDArray:
    """Inverse of `pack_constant`; bits come back as uint8 0 and 1.

    Raises:
        ValueError: where the number of bytes is not that of dtype and shape, or a bit above the last channel is set.
    """
    expected = dtype.stored_bytes(shape)
    if len(data) != expected:
        raise ValueError(f"a {dtype.name.lower()} constant of shape {shape} has {len(data)} bytes, not {expected}")
    if dtype is not DType.BIT:
        return np.frombuffer(data, dtype.numpy).reshape(shape).copy()
    words = np.frombuffer(data, "<u8").reshape(*shape[:-1], -1)
    bits = unpack_bits(words, shape[-1])
    if not np.array_equal(pack_bits(bits), words):
        raise ValueError(f"a bit constant of shape {shape} has bits set above its last channel")
    return bits
