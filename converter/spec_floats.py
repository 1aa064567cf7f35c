"""The rules of `spec` for the ops between the layers of plain models: bit planes, arithmetic, and moved elements."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor, image_shape
from larq_clip.converter.spec_integers import Rule

FILE_OPS = (ir.Concatenate, ir.Arithmetic, ir.PReLU, ir.Function, ir.Slice, ir.DepthToSpace)
MOVED = (DType.FLOAT32, DType.BIT, *ir.STORED)  # what a file moves from place to place
WORD = 64  # bits


def _thresholds(op: ir.Bitpack, source: Tensor, planes: int) -> bool:
    tau = op.thresholds
    if tau is None:
        return planes == 1
    shape = (source.channels,) if planes == 1 else (2**planes - 1, source.channels)
    numbers = DType.FLOAT32 if source.dtype is DType.INT32 else source.dtype
    if tau.shape != shape or tau.dtype != numbers.numpy or np.any(np.isnan(tau)):
        return False
    return planes == 1 or bool(np.all(tau[1:] >= tau[:-1]))


def _repeats(shape: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether each axis is as long as that of the whole, or 1."""
    return len(shape) == len(whole) and all(size in (1, axis) for size, axis in zip(shape, whole))


def _broadcast(sources: Sequence[Tensor], result: Tensor) -> bool:
    shapes = [image_shape(source.shape) for source in sources]
    whole = tuple(map(max, zip(*shapes)))
    return whole == image_shape(result.shape) and all(_repeats(shape, whole) for shape in shapes)


def _concatenated(sources: Sequence[Tensor], result: Tensor) -> bool:
    bits = np.concatenate([source.scale_bits for source in sources])
    return (
        result.shape == (*sources[0].shape[:-1], sum(source.channels for source in sources))
        and all(
            source.shape[:-1] == sources[0].shape[:-1] and len(source.shape) == len(result.shape) for source in sources
        )
        and bool(np.all(bits == result.scale_bits))
    )


def _joined_types(sources: Sequence[Tensor], result: Tensor) -> bool:
    types = {source.dtype for source in sources}
    return result.dtype is max(types) and (len(types) == 1 or types <= set(ir.STORED)) and types <= set(MOVED)


def _slice_value(op: ir.Slice, source: Tensor, result: Tensor) -> bool:
    """What lies outside is a value of the tensor's type."""
    if source.dtype is DType.FLOAT32:
        return math.isfinite(op.value) and float(np.float32(op.value)) == op.value
    if source.dtype is DType.BIT:
        return op.value in (-1, 1) or (op.value == 0 and not op.fills(source, result))
    limits = np.iinfo(source.dtype.numpy)
    return op.value == np.rint(op.value) and limits.min <= op.value <= limits.max and abs(op.value) <= 1 << 24


def _slice_fractions(op: ir.Slice, source: Tensor, result: Tensor) -> bool:
    """Channels that come from the input keep their fraction bits."""
    first, end = op.overlaps(source, result)[2]
    moved = source.scale_bits[max(0, first + op.begin_c) : max(0, end + op.begin_c)]
    return bool(np.all(moved == result.scale_bits[first : max(first, end)]))


def _slice_words(op: ir.Slice, source: Tensor, result: Tensor) -> bool:
    if source.dtype is not DType.BIT:
        return True
    end = op.begin_c + result.channels
    inside = op.begin_c >= 0 and end <= source.channels
    return inside and op.begin_c % WORD == 0 and (end == source.channels or result.channels % WORD == 0)


def _blocks(op: ir.DepthToSpace, source: Tensor, result: Tensor) -> bool:
    if min(op.block_h, op.block_w) < 1:
        return False
    height, width, channels = image_shape(source.shape)
    whole = (height * op.block_h, width * op.block_w)
    if (*whole, channels) != (*image_shape(result.shape)[:2], result.channels * op.block_h * op.block_w):
        return False
    return bool(np.all(source.scale_bits.reshape(-1, result.channels) == result.scale_bits))


RULES: tuple[Rule, ...] = (
    Rule(
        (ir.Bitpack,),
        "its thresholds are of its input's type (float32 for int32), one a channel, of k outputs 2^k - 1 a channel in "
        "ascending order, and not NaN",
        lambda op, s, r: _thresholds(op, s[0], len(r)),
    ),
    Rule(
        (ir.Bitpack,),
        "its outputs are bits of its input's shape",
        lambda op, s, r: all(t.dtype is DType.BIT and t.shape == s[0].shape for t in r),
    ),
    Rule(
        (ir.Concatenate,),
        "it reads int8 and int16, or else one type, and writes the wider one",
        lambda op, s, r: _joined_types(s, r[0]),
    ),
    Rule(
        (ir.Concatenate,),
        "its output has the channels of its inputs and their fraction bits",
        lambda op, s, r: _concatenated(s, r[0]),
    ),
    Rule(
        (ir.Arithmetic, ir.PReLU, ir.Function),
        "it takes float32 to float32",
        lambda op, s, r: all(t.dtype is DType.FLOAT32 for t in (*s, *r)),
    ),
    Rule(
        (ir.Arithmetic,),
        "each axis of its output is the longer one of its inputs', whose axes are as long or 1",
        lambda op, s, r: _broadcast(s, r[0]),
    ),
    Rule((ir.PReLU, ir.Function), "it keeps the shape", lambda op, s, r: s[0].shape == r[0].shape),
    Rule(
        (ir.PReLU,),
        "its slope is finite float32 [height or 1, width or 1, channels or 1]",
        lambda op, s, r: (
            op.slope.dtype == np.float32
            and _repeats(op.slope.shape, image_shape(s[0].shape))
            and bool(np.all(np.isfinite(op.slope)))
        ),
    ),
    Rule((ir.Slice, ir.DepthToSpace), "it keeps the type", lambda op, s, r: s[0].dtype is r[0].dtype),
    Rule(
        (ir.Slice,),
        "its begins are within 2^24",
        lambda op, s, r: all(abs(begin) <= 1 << 24 for begin in (op.begin_h, op.begin_w, op.begin_c)),
    ),
    Rule((ir.Slice,), "its value is one of its type", lambda op, s, r: _slice_value(op, s[0], r[0])),
    Rule((ir.Slice,), "it keeps the fraction bits", lambda op, s, r: _slice_fractions(op, s[0], r[0])),
    Rule(
        (ir.Slice,),
        "bits keep their words: its channels are the input's, from a multiple of 64 to the last or a multiple",
        lambda op, s, r: _slice_words(op, s[0], r[0]),
    ),
    Rule(
        (ir.DepthToSpace,),
        "its input is [height / block_h, width / block_w, block_h * block_w * channels] of its output, with its "
        "fraction bits",
        lambda op, s, r: _blocks(op, s[0], r[0]),
    ),
    Rule(
        (ir.DepthToSpace,),
        "bits keep their words: its output's channels are a multiple of 64",
        lambda op, s, r: s[0].dtype is not DType.BIT or r[0].channels % WORD == 0,
    ),
)

FILE_RULES: tuple[Rule, ...] = (
    Rule(
        (ir.Slice, ir.DepthToSpace),
        "it moves float32, int8, int16 or bits",
        lambda op, s, r: s[0].dtype in MOVED,
    ),
)
