"""Fixed-point epilogues: exact integers, element by element, rounded once, where they are stored (section 3.2).

The steps take an integer y of channel c from one value to the next and the stores write the last one; what the numbers
stand for, their fraction bits, is known to the tensors and not to the steps. Everything fits 63 bits, which
`FixedPoint.ranges` proves from the ranges of what the steps start from.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic, fixed_point
from larq_clip.arithmetic import clip_limit
from larq_clip.converter.ir.tensors import DType, Tensor

Integers = NDArray[np.int64]
EXACT_BITS = 62  # no y leaves +-2^62
LARGEST_SHIFT = 62
INT32 = np.iinfo(np.int32)


class StepKind(enum.IntEnum):
    """What a step does; the numbers are those of the file."""

    RELU = 0
    AFFINE = 1
    ADD = 2


@dataclass(frozen=True, eq=False)
class Step:
    """RELU: y = max(y, 0). AFFINE: y = multiplier[c] y + offset[c]. ADD: y = y 2^shift[c] + x 2^operand_shift[c].

    Attributes:
        multiplier: int32 ``(channels,)``.
        offset: int64 ``(channels,)``, 0 where none.
        operand: of ADD, the place of x among the op's inputs, from 1 on.
        shift: int8 ``(channels,)``, 0 to 62, 0 where none.
        operand_shift: likewise.
    """

    kind: StepKind
    multiplier: NDArray[np.int32] | None = field(default=None, repr=False)
    offset: NDArray[np.int64] | None = field(default=None, repr=False)
    operand: int = 0
    shift: NDArray[np.int8] | None = field(default=None, repr=False)
    operand_shift: NDArray[np.int8] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Store:
    """How the last y is written to an output, by the output's type.

    Int8 and Int16: clip(floor(y / 2^shift[c] + 1/2), +-127 or +-32767). Float32: y / 2^shift[c], rounded once, to
    nearest, ties to even. Bit: +1 <=> (y > thresholds[c]) xor invert[c], thresholds -1 where none. Int64, in imported
    graphs only: y.

    Attributes:
        shift: int8 ``(channels,)``, -62 to 62, 0 where none.
        thresholds: int64 ``(channels,)``.
        invert: bits ``(channels,)``.
    """

    shift: NDArray[np.int8] | None = field(default=None, repr=False)
    thresholds: NDArray[np.int64] | None = field(default=None, repr=False)
    invert: NDArray[np.uint8] | None = field(default=None, repr=False)

    def write(self, y: NDArray[np.integer], result: Tensor) -> NDArray:
        """The array of an output, ``(batch, ...)`` in its shape and type."""
        if result.dtype is DType.INT64:
            stored: NDArray = y
        elif result.dtype is DType.BIT:
            limits = np.full(y.shape[-1], -1, np.int64) if self.thresholds is None else self.thresholds
            invert = np.zeros(y.shape[-1], np.uint8) if self.invert is None else self.invert
            stored = arithmetic.threshold_bits(y, arithmetic.Thresholds(limits, invert))
        elif result.dtype is DType.FLOAT32:
            stored = np.ldexp(y.astype(np.float32), -_shift(self.shift).astype(np.int32))
        else:
            limit, shift = clip_limit(8 * result.dtype.numpy.itemsize), _shift(self.shift)
            # Where a shift multiplies, 16 bits and more saturate all but 0.
            y = np.where(shift < 0, np.clip(y, -limit, limit), y)
            stored = np.clip(fixed_point.shift_half_up(y, np.maximum(shift, -16)), -limit, limit)
        return stored.reshape(len(y), *result.shape).astype(result.dtype.numpy, copy=False)


class Range(NamedTuple):
    """Smallest and largest integer of each channel: Python integers ``(channels,)``, which do not overflow."""

    low: NDArray[np.object_]
    high: NDArray[np.object_]

    @classmethod
    def of(cls, low: object, high: object, channels: int) -> Range:
        """A range from one bound, or one per channel, on either side."""
        ends = []
        for bound in (low, high):
            array = np.empty(channels, object)
            array[:] = np.asarray(bound).tolist()
            ends.append(array)
        return cls(*ends)

    @classmethod
    def of_type(cls, tensor: Tensor) -> Range:
        """All that an integer type holds."""
        info = np.iinfo(tensor.dtype.numpy)
        return cls.of(int(info.min), int(info.max), tensor.channels)

    @property
    def largest(self) -> int:
        """The largest magnitude of all channels."""
        return int(max(*(-self.low), *self.high))

    def scaled(self, factor: NDArray[np.object_]) -> Range:
        a, b = self.low * factor, self.high * factor
        return Range(np.minimum(a, b), np.maximum(a, b))

    def plus(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)


def _shift(shift: NDArray[np.int8] | None) -> Integers:
    return np.zeros((), np.int64) if shift is None else shift.astype(np.int64)


def _power(shift: NDArray[np.int8] | None, channels: int) -> NDArray[np.object_]:
    powers = np.empty(channels, object)
    powers[:] = [1 << int(s) for s in np.broadcast_to(_shift(shift), (channels,))]
    return powers


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """Steps in order, then one store for each output of the op."""

    steps: tuple[Step, ...] = ()
    stores: tuple[Store, ...] = (Store(),)

    def evaluate(self, y: NDArray[np.integer], inputs: Sequence[NDArray], results: Sequence[Tensor]) -> list[NDArray]:
        """The outputs, from y ``(batch, ..., channels)`` and all inputs of the op, as they are."""
        y = np.asarray(y, np.int64)
        for step in self.steps:
            if step.kind is StepKind.RELU:
                y = np.maximum(y, 0)
            elif step.kind is StepKind.AFFINE:
                assert step.multiplier is not None
                y = y * step.multiplier.astype(np.int64)
                y = y if step.offset is None else y + step.offset
            else:
                x = np.asarray(inputs[step.operand], np.int64).reshape(y.shape)
                y = (y << _shift(step.shift)) + (x << _shift(step.operand_shift))
        return [store.write(y, result) for store, result in zip(self.stores, results, strict=True)]

    def ranges(self, start: Range, inputs: Sequence[Range | None]) -> Range:
        """The range of the last y, from that of the first and those of the op's inputs.

        Raises:
            OverflowError: where a y, or a term of it, may leave +-2^62; says which step.
        """
        now, channels = start, len(start.low)
        for place, step in enumerate(self.steps):
            terms = [now]
            if step.kind is StepKind.RELU:
                now = Range(np.maximum(now.low, 0), np.maximum(now.high, 0))
            elif step.kind is StepKind.AFFINE:
                assert step.multiplier is not None
                now = now.scaled(Range.of(step.multiplier, 0, channels).low)
                terms.append(now)
                if step.offset is not None:
                    terms.append(Range.of(step.offset, step.offset, channels))
                    now = now.plus(terms[-1])
            else:
                own, operand = now.scaled(_power(step.shift, channels)), inputs[step.operand]
                assert operand is not None, "an operand of a sum is an integer tensor"
                other = operand.scaled(_power(step.operand_shift, channels))
                terms += [own, other]
                now = own.plus(other)
            largest = max(part.largest for part in (*terms, now))
            if largest > 1 << EXACT_BITS:
                raise OverflowError(
                    f"step {place + 1} of {len(self.steps)} ({step.kind.name.lower()}) reaches "
                    f"{largest.bit_length()} bits; accepted are integers within ±2^{EXACT_BITS}"
                )
        return now


def store_mean(total: Integers, pixels: Integers, shift: Integers, limit: int) -> Integers:
    """clip(floor(2^shift total / pixels + 1/2), +-limit), exactly.

    Args:
        total: ``(batch, height, width, channels)``, sums of at most 16-bit integers.
        pixels: ``(height, width)``.
        shift: ``(channels,)``.
    """
    # |total| < pixels 2^15, so that behind a division by 2^32 and more nothing but 0 or -1/2 rounded up is left, and
    # a product with 2^17 and more saturates all but 0: no shift beyond that changes the result.
    up, down = np.clip(shift, 0, 17), np.clip(-shift, 0, 32)
    numerator = (total.astype(np.int64) << up) * 2
    denominator = pixels[None, :, :, None] << down
    return np.clip((numerator + denominator) // (2 * denominator), -limit, limit)


def affine_step(multiplier: NDArray[np.integer], offset: NDArray[np.integer] | None = None) -> tuple[Step, ...]:
    """The step y = multiplier y + offset; no step where it changes nothing.

    Raises:
        OverflowError: where a multiplier does not fit int32.
    """
    if np.any(multiplier > INT32.max) or np.any(multiplier < INT32.min):
        raise OverflowError(f"a multiplier of {np.abs(multiplier).max()} does not fit int32")
    exact = None if offset is None or not np.any(offset) else np.asarray(offset, np.int64)
    if exact is None and np.all(multiplier == 1):
        return ()
    return (Step(StepKind.AFFINE, multiplier.astype(np.int32), exact),)


def clip_steps(low: NDArray[np.integer], high: NDArray[np.integer]) -> tuple[Step, ...]:
    """The steps y = clip(y, low, high), one bound a channel: high - max(high - low - max(y - low, 0), 0)."""
    one, relu = np.ones(len(low), np.int64), (Step(StepKind.RELU),)
    first, last = affine_step(-one, high - low), affine_step(-one, high)
    return affine_step(one, -low) + relu + first + relu + last


def add_step(operand: int, shift: NDArray[np.integer], operand_shift: NDArray[np.integer]) -> Step:
    """The step y = y 2^shift + x 2^operand_shift.

    Raises:
        OverflowError: where a shift is above 62.
    """
    if max(shift.max(), operand_shift.max()) > LARGEST_SHIFT:
        raise OverflowError(f"a shift of {max(shift.max(), operand_shift.max())} bits is above {LARGEST_SHIFT}")
    return Step(StepKind.ADD, operand=operand, shift=_shift_or_none(shift), operand_shift=_shift_or_none(operand_shift))


def shift_store(shift: NDArray[np.integer]) -> Store:
    """The store of integers or float32 whose fraction bits are fewer by `shift`.

    Raises:
        OverflowError: where a shift is beyond +-62.
    """
    if np.abs(shift).max() > LARGEST_SHIFT:
        raise OverflowError(f"a shift of {np.abs(shift).max()} bits is above {LARGEST_SHIFT}")
    return Store(_shift_or_none(shift))


def _shift_or_none(shift: NDArray[np.integer]) -> NDArray[np.int8] | None:
    return shift.astype(np.int8) if np.any(shift) else None


def merged(first: tuple[Step, ...], second: tuple[Step, ...]) -> tuple[Step, ...]:
    """Both one after the other; of two affine steps that meet one is left, m2 (m1 y + t1) + t2 = (m2 m1) y +
    (m2 t1 + t2), where its multiplier fits int32 and its offset int64."""
    if not first or not second or {first[-1].kind, second[0].kind} != {StepKind.AFFINE}:
        return first + second
    (m1, t1), (m2, t2) = (_exact_affine(step) for step in (first[-1], second[0]))
    multiplier, offset = m2 * m1, m2 * t1 + t2
    if np.abs(multiplier).max() > INT32.max or np.abs(offset).max() > 1 << EXACT_BITS:
        return first + second
    return first[:-1] + affine_step(multiplier.astype(np.int64), offset.astype(np.int64)) + second[1:]


def _exact_affine(step: Step) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    assert step.multiplier is not None
    both = Range.of(step.multiplier, 0 if step.offset is None else step.offset, len(step.multiplier))
    return both.low, both.high
