"""Constants as the file holds them: little-endian, row-major, bits without gaps in 64-bit words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from larq_clip.arithmetic import pack_bits, unpack_bits
from larq_clip.converter.ir import DType
from larq_clip.converter.ir.tensors import Shape, count


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


def constant_bytes(dtype: DType, shape: Shape) -> int:
    """Bytes of a constant. Unlike those of a tensor, its bits fill words from the first axis to the last."""
    return dtype.stored_bytes((count(shape),) if dtype is DType.BIT else shape)


def pack_constant(array: NDArray, dtype: DType) -> bytes:
    """Bytes of a constant."""
    if dtype is DType.BIT:
        return pack_bits(array.reshape(-1)).astype("<u8", copy=False).tobytes()
    return np.ascontiguousarray(array, dtype.numpy).tobytes()


def unpack_constant(data: bytes | memoryview, dtype: DType, shape: tuple[int, ...]) -> NDArray:
    """Inverse of `pack_constant`; bits come back as uint8 0 and 1.

    Raises:
        ValueError: where the number of bytes is not that of dtype and shape, or a bit above the last one is set.
    """
    expected = constant_bytes(dtype, shape)
    if len(data) != expected:
        raise ValueError(f"a {dtype.name.lower()} constant of shape {shape} has {len(data)} bytes, not {expected}")
    if dtype is not DType.BIT:
        return np.frombuffer(data, dtype.numpy).reshape(shape).copy()
    words = np.frombuffer(data, "<u8")
    bits = unpack_bits(words, count(shape))
    if not np.array_equal(pack_bits(bits), words):
        raise ValueError(f"a bit constant of shape {shape} has bits set above its last one")
    return bits.reshape(shape)
