"""The rules of `spec` for the ops of fixed-point models, which may have several inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Epilogue, StepKind, Store, Tensor
from larq_clip.converter.ir.fixed_point import LARGEST_SHIFT

FILE_OPS = (ir.Int8Conv2D, ir.Elementwise, ir.Quantize)
MAX_PLANES = 3  # bit planes of a Bitpack; as in the runtime
WITH_STEPS = (ir.BinaryConv2D, ir.Int8Conv2D, ir.Elementwise)


class Rule(NamedTuple):
    """`holds(op, sources, results)` must be true of every op of these types."""

    types: tuple[type[ir.Op], ...]
    text: str
    holds: Callable[[Any, Sequence[Tensor], Sequence[Tensor]], bool]


def wrong_arity(op: ir.Op) -> bool:
    """Whether an op has more or fewer inputs or outputs than its type can have."""
    steps = getattr(op, "fixed_point", None)
    if isinstance(op, ir.Concatenate):
        return len(op.inputs) < 2 or len(op.outputs) != 1
    if isinstance(op, ir.Arithmetic):
        return len(op.inputs) != 2 or len(op.outputs) != 1
    if isinstance(op, ir.Bitpack):
        return len(op.inputs) != 1 or not 1 <= len(op.outputs) <= MAX_PLANES
    if steps is None:
        return len(op.inputs) != 1 or len(op.outputs) != 1
    return not op.inputs or not op.outputs or len(op.outputs) != len(steps.stores)


def _constant(array: np.ndarray | None, channels: int, dtype: DType) -> bool:
    return array is None or (array.shape == (channels,) and array.dtype == dtype.numpy)


def _shift(array: np.ndarray | None, channels: int, lowest: int) -> bool:
    return _constant(array, channels, DType.INT8) and (
        array is None or bool(np.all((array >= lowest) & (array <= LARGEST_SHIFT)))
    )


def _steps(op: Any, sources: Sequence[Tensor], results: Sequence[Tensor]) -> bool:
    """Each step has the constants of its kind, and the operands of the sums are the further inputs, in order."""
    if op.fixed_point is None:
        return True
    channels = results[0].channels
    for step in op.fixed_point.steps:
        affine, add = step.kind is StepKind.AFFINE, step.kind is StepKind.ADD
        if affine != (step.multiplier is not None) or (not affine and step.offset is not None):
            return False
        if not add and (step.shift is not None or step.operand_shift is not None or step.operand):
            return False
        if not _constant(step.multiplier, channels, DType.INT32) or not _constant(step.offset, channels, DType.INT64):
            return False
        if not _shift(step.shift, channels, 0) or not _shift(step.operand_shift, channels, 0):
            return False
    operands = [step.operand for step in op.fixed_point.steps if step.kind is StepKind.ADD]
    return operands == list(range(1, len(sources)))


def _store(store: Store, result: Tensor) -> bool:
    shift_only = store.thresholds is None and store.invert is None
    if result.dtype is DType.INT64:
        return shift_only and store.shift is None
    if result.dtype is not DType.BIT:
        return shift_only and result.dtype is not DType.INT32 and _shift(store.shift, result.channels, -LARGEST_SHIFT)
    invert = store.invert
    return (
        store.shift is None
        and _constant(store.thresholds, result.channels, DType.INT64)
        and (invert is None or (invert.shape == (result.channels,) and bool(np.all(invert <= 1))))
    )


def _same_shape(op: Any, sources: Sequence[Tensor], results: Sequence[Tensor]) -> bool:
    """Outputs and operands of sums have the shape that the op computes in."""
    operands = sources if isinstance(op, ir.Elementwise) else sources[1:]
    return all(tensor.shape == results[0].shape for tensor in (*operands, *results))


def _selected(op: Any, source: Tensor, result: Tensor) -> bool:
    if op.channels.shape != result.shape[-1:] or result.shape[:-1] != source.shape[:-1]:
        return False
    if op.channels.min() < -1 or op.channels.max() >= source.channels:
        return False
    return bool(np.all((op.channels < 0) | (source.scale_bits[op.channels] == result.scale_bits)))


RULES: tuple[Rule, ...] = (
    Rule(
        (ir.BinaryConv2D,),
        "the epilogue FixedPoint has steps and stores, and no other has any",
        lambda op, s, r: (op.fixed_point is not None) == (op.epilogue is Epilogue.FIXED_POINT),
    ),
    Rule(WITH_STEPS, "its steps have the constants of their kind, and its further inputs are their operands", _steps),
    Rule(
        WITH_STEPS,
        "its stores have the constants of their outputs' types",
        lambda op, s, r: op.fixed_point is None or all(map(_store, op.fixed_point.stores, r)),
    ),
    Rule(WITH_STEPS, "its operands and outputs have one shape", _same_shape),
    Rule(WITH_STEPS, "its operands are integers", lambda op, s, r: all(t.dtype in ir.INTEGERS for t in s[1:])),
    Rule((ir.Elementwise,), "it reads integers", lambda op, s, r: s[0].dtype in ir.INTEGERS),
    Rule((ir.Int8Conv2D,), "it reads int8", lambda op, s, r: s[0].dtype is DType.INT8),
    Rule(
        (ir.Int8Conv2D,),
        "groups divide its input and output channels",
        lambda op, s, r: op.groups >= 1 and s[0].channels % op.groups == 0 and r[0].channels % op.groups == 0,
    ),
    Rule(
        (ir.Int8Conv2D,),
        "its weights are int8 [out_channels, kernel_h, kernel_w, in_channels / groups]",
        lambda op, s, r: (
            op.weights.dtype == np.int8
            and op.weights.shape == (r[0].channels, op.window.kernel_h, op.window.kernel_w, s[0].channels // op.groups)
        ),
    ),
    Rule(
        (ir.Int8Conv2D,),
        "its bias is int32, one a channel",
        lambda op, s, r: _constant(op.bias, r[0].channels, DType.INT32),
    ),
    Rule(
        (ir.Quantize,),
        "it takes float32 to int8 or int16",
        lambda op, s, r: s[0].dtype is DType.FLOAT32 and r[0].dtype in ir.STORED,
    ),
    Rule(
        (ir.SelectChannels,),
        "it takes int8 to int8",
        lambda op, s, r: s[0].dtype is r[0].dtype is DType.INT8,
    ),
    Rule(
        (ir.SelectChannels,),
        "its output has the channels that it names, -1 for zeros, and their fraction bits",
        lambda op, s, r: _selected(op, s[0], r[0]),
    ),
)

FILE_RULES: tuple[Rule, ...] = (
    Rule(
        WITH_STEPS,
        "its operands are int8 or int16",
        lambda op, s, r: all(tensor.dtype in ir.STORED for tensor in s[1:]),
    ),
    Rule((ir.Elementwise,), "it reads int8 or int16", lambda op, s, r: s[0].dtype in ir.STORED),
)
