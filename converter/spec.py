"""What a well-formed graph is, as one table of rules; checked between passes, before writing and after reading.

A rule names the ops it speaks about, says in words what must hold, and tests it on the op, its first input tensor and
its first output tensor. `FILE_RULES` hold in addition for a lowered graph: then every op is one of the file and every
tensor of a type that the runtime handles in that place. The rules that see all inputs and outputs of an op are in
`spec_integers` (ops of fixed-point models) and `spec_floats` (those between the layers of plain models).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from larq_clip.arithmetic import clip_limit
from larq_clip.converter import ir, spec_floats, spec_integers
from larq_clip.converter.ir import DType, Epilogue, Tensor
from larq_clip.converter.ir.ops import clip_bits
from larq_clip.converter.ir.tensors import count

MAX_AXIS = 1 << 24
MAX_WINDOW = 65535  # kernel, stride, dilation and padding; as in the runtime
MAX_ELEMENTS = 1 << 31
FILE_OPS = (
    ir.BinaryConv2D,
    ir.BitMaxPool2D,
    ir.Bitpack,
    ir.Unpack,
    ir.Conv2D,
    ir.MaxPool2D,
    ir.AveragePool2D,
    ir.Affine,
    ir.Softmax,
    ir.Reshape,
    *spec_integers.FILE_OPS,
    *spec_floats.FILE_OPS,
)


class SpecError(ValueError):
    """A graph that breaks a rule."""


class Rule(NamedTuple):
    """`holds(op, source, result)` must be true of every op of these types."""

    types: tuple[type[ir.Op], ...]
    text: str
    holds: Callable[[Any, Tensor, Tensor], bool]


NUMBERS = (DType.FLOAT32, *ir.INTEGERS)
WINDOWED = (ir.BinaryConv2D, ir.BitMaxPool2D, ir.Conv2D, ir.Int8Conv2D, ir.MaxPool2D, ir.AveragePool2D)
POOLS = (ir.BitMaxPool2D, ir.MaxPool2D, ir.AveragePool2D)
ELEMENTWISE = (ir.Unpack, ir.Affine, ir.BatchNorm, ir.AccumulatorClip, ir.Softmax, ir.Quantize)

EPILOGUE_RESULT = {
    Epilogue.ACCUMULATOR: DType.INT32,
    Epilogue.THRESHOLD: DType.BIT,
    Epilogue.CLIP: DType.INT8,
    Epilogue.AFFINE: DType.FLOAT32,
}


def _constant(array: np.ndarray | None, channels: int, *dtypes: DType) -> bool:
    """An optional constant with one number a channel, of one of these types."""
    return array is None or (array.shape == (channels,) and array.dtype in [d.numpy for d in dtypes])


def _bits(array: np.ndarray | None) -> bool:
    return array is None or (array.dtype == np.uint8 and bool(np.all(array <= 1)))


def _finite(array: np.ndarray | None) -> bool:
    return array is None or bool(np.all(np.isfinite(array)))


def _is_clip_limit(limit: int) -> bool:
    return 0 < limit < 1 << 24 and limit == clip_limit(clip_bits(limit))


def window_fits(op: Any, source: Tensor, result: Tensor) -> bool:
    """Every number is in range, padding is smaller than the window, and each window starts before the image ends."""
    w = op.window
    if min(w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w) < 1:
        return False
    if min(w.pad_top, w.pad_left) < 0 or max(vars(w).values()) > MAX_WINDOW:
        return False
    return all(
        axis.pad_before <= (axis.kernel - 1) * axis.dilation
        and (axis.out - 1) * axis.stride - axis.pad_before < axis.size
        for axis in w.axes(source.shape, result.shape)
    )


def _window_meets_image(op: Any, source: Tensor, result: Tensor) -> bool:
    """Every window of a pool has a pixel inside the image: the first tap at or after pixel 0 exists and is inside."""
    for axis in op.window.axes(source.shape, result.shape):
        start = np.arange(axis.out, dtype=np.int64) * axis.stride - axis.pad_before
        tap = np.maximum(0, -(start // axis.dilation))
        if np.any(tap >= axis.kernel) or np.any(start + tap * axis.dilation >= axis.size):
            return False
    return True


def _bit_reshape_keeps_words(op: Any, source: Tensor, result: Tensor) -> bool:
    if source.dtype is not DType.BIT or source.channels == result.channels:
        return True
    return source.channels % 64 == 0 and result.channels % 64 == 0


RULES: tuple[Rule, ...] = (
    Rule(WINDOWED, "its window fits the input and output sizes", window_fits),
    Rule(POOLS, "every window has a pixel inside the image", _window_meets_image),
    Rule(POOLS, "it keeps the number of channels", lambda op, s, r: s.channels == r.channels),
    Rule(ELEMENTWISE, "it keeps the shape", lambda op, s, r: s.shape == r.shape),
    # Binary convolution
    Rule((ir.BinaryConv2D,), "it reads bits", lambda op, s, r: s.dtype is DType.BIT),
    Rule((ir.BinaryConv2D,), "pad_value is -1, 0 or 1", lambda op, s, r: op.pad_value in (-1, 0, 1)),
    Rule(
        (ir.BinaryConv2D, ir.Conv2D),
        "groups divide its input and output channels",
        lambda op, s, r: op.groups >= 1 and s.channels % op.groups == 0 and r.channels % op.groups == 0,
    ),
    Rule(
        (ir.BinaryConv2D,),
        "its weights are bits [out_channels, kernel_h, kernel_w, in_channels / groups]",
        lambda op, s, r: (
            _bits(op.weights)
            and op.weights.shape == (r.channels, op.window.kernel_h, op.window.kernel_w, s.channels // op.groups)
        ),
    ),
    Rule((ir.BinaryConv2D,), "its sums fit 31 bits", lambda op, s, r: op.k < 1 << 30),
    Rule(
        (ir.BinaryConv2D,),
        "clip_limit is 2^(bits - 1) - 1",
        lambda op, s, r: op.clip_limit == 0 or _is_clip_limit(op.clip_limit),
    ),
    Rule(
        (ir.BinaryConv2D, ir.AccumulatorClip),
        "step_log2 is from -24 to 24",
        lambda op, s, r: -24 <= op.step_log2 <= 24,
    ),
    Rule(
        (ir.BinaryConv2D,),
        "its output type suits its epilogue",
        lambda op, s, r: op.epilogue is Epilogue.FIXED_POINT or r.dtype is EPILOGUE_RESULT[op.epilogue],
    ),
    Rule(
        (ir.BinaryConv2D,),
        "the epilogue Threshold has integer thresholds, one a channel, and no other has any",
        lambda op, s, r: (
            _constant(op.thresholds, r.channels, DType.INT8, DType.INT16, DType.INT32)
            and (op.thresholds is not None) == (op.epilogue is Epilogue.THRESHOLD)
        ),
    ),
    Rule(
        (ir.BinaryConv2D,),
        "invert is for the epilogue Threshold",
        lambda op, s, r: op.invert is None or op.epilogue is Epilogue.THRESHOLD,
    ),
    Rule(
        (ir.BinaryConv2D,),
        "the epilogue Clip stores v, 0 < clip_limit <= 127, with -step_log2 fraction bits",
        lambda op, s, r: (
            op.epilogue is not Epilogue.CLIP
            or (
                0 < op.clip_limit <= 127 and r.fraction_bits in ((-op.step_log2,), *([()] if op.step_log2 == 0 else []))
            )
        ),
    ),
    Rule(
        (ir.BinaryConv2D,),
        "the epilogue Affine has a finite float32 multiplier and offset, one a channel, and no other has any",
        lambda op, s, r: (
            _constant(op.multiplier, r.channels, DType.FLOAT32)
            and _constant(op.offset, r.channels, DType.FLOAT32)
            and _finite(op.multiplier)
            and _finite(op.offset)
            and (op.multiplier is not None) == (op.offset is not None) == (op.epilogue is Epilogue.AFFINE)
        ),
    ),
    # Bits
    Rule(
        (ir.BinaryConv2D, ir.BitMaxPool2D, ir.Bitpack),
        "invert is one bit a channel",
        lambda op, s, r: _bits(op.invert) and _constant(op.invert, r.channels, DType.BIT),
    ),
    Rule((ir.BitMaxPool2D, ir.Unpack), "it reads bits", lambda op, s, r: s.dtype is DType.BIT),
    Rule((ir.BitMaxPool2D,), "it writes bits", lambda op, s, r: r.dtype is DType.BIT),
    Rule((ir.Bitpack,), "it reads numbers", lambda op, s, r: s.dtype in NUMBERS),
    # Numbers
    Rule(
        (ir.Unpack, ir.Conv2D, ir.BatchNorm, ir.Affine, ir.Softmax),
        "it writes float32",
        lambda op, s, r: r.dtype is DType.FLOAT32,
    ),
    Rule((ir.BatchNorm, ir.Affine, ir.MaxPool2D), "it reads numbers", lambda op, s, r: s.dtype in NUMBERS),
    Rule((ir.Conv2D, ir.Softmax), "it reads float32", lambda op, s, r: s.dtype is DType.FLOAT32),
    Rule(
        (ir.AveragePool2D,),
        "it takes float32 to float32, or int8 or int16 to int8 or int16",
        lambda op, s, r: s.dtype is r.dtype is DType.FLOAT32 or (s.dtype in ir.STORED and r.dtype in ir.STORED),
    ),
    Rule(
        (ir.Conv2D,),
        "its weights are finite float32 [kernel_h, kernel_w, in_channels / groups, out_channels]",
        lambda op, s, r: (
            op.weights.dtype == np.float32
            and op.weights.shape == (op.window.kernel_h, op.window.kernel_w, s.channels // op.groups, r.channels)
            and _finite(op.weights)
        ),
    ),
    Rule(
        (ir.Conv2D,),
        "its bias is finite float32, one a channel",
        lambda op, s, r: _constant(op.bias, r.channels, DType.FLOAT32) and _finite(op.bias),
    ),
    Rule(
        (ir.Affine,),
        "its multiplier and offset are finite float32, one a channel",
        lambda op, s, r: (
            _constant(op.multiplier, r.channels, DType.FLOAT32)
            and _constant(op.offset, r.channels, DType.FLOAT32)
            and _finite(op.multiplier)
            and _finite(op.offset)
        ),
    ),
    Rule(
        (ir.BatchNorm,),
        "its four constants are finite float32, one a channel",
        lambda op, s, r: all(
            _constant(c, r.channels, DType.FLOAT32) and _finite(c) for c in (op.gamma, op.beta, op.mean, op.variance)
        ),
    ),
    Rule(
        (ir.AccumulatorClip,),
        "it takes int32 to int8, or to int16 or float32 where its limit is larger than 127",
        lambda op, s, r: (
            s.dtype is DType.INT32
            and (
                r.has_format(DType.INT8 if op.limit <= 127 else DType.INT16, np.array(-op.step_log2))
                or (op.limit > 127 and r.dtype is DType.FLOAT32)
            )
        ),
    ),
    Rule((ir.AccumulatorClip,), "limit is 2^(bits - 1) - 1", lambda op, s, r: _is_clip_limit(op.limit)),
    Rule(
        (ir.MaxPool2D, ir.Reshape),
        "it keeps the type and the fraction bits",
        lambda op, s, r: (
            (len(s.fraction_bits) <= 1 or r.channels % s.channels == 0)
            and s.reshaped(r.name, r.shape).has_format(r.dtype, r.scale_bits)
        ),
    ),
    Rule((ir.Reshape,), "it keeps the number of elements", lambda op, s, r: count(s.shape) == count(r.shape)),
)

FILE_RULES: tuple[Rule, ...] = (
    Rule(
        (ir.BinaryConv2D,),
        "its epilogue is one of the file's",
        lambda op, s, r: op.epilogue is not Epilogue.ACCUMULATOR,
    ),
    Rule(
        (ir.Bitpack, ir.MaxPool2D, ir.Reshape),
        "it reads float32, int8 or int16 (Reshape: bits too)",
        lambda op, s, r: (
            s.dtype in (DType.FLOAT32, *ir.STORED) or (isinstance(op, ir.Reshape) and s.dtype is DType.BIT)
        ),
    ),
    Rule((ir.Affine,), "it reads float32 or int8", lambda op, s, r: s.dtype in (DType.FLOAT32, DType.INT8)),
    Rule(
        (ir.Reshape,),
        "bits keep their words: the last axis stays, or both are multiples of 64",
        _bit_reshape_keeps_words,
    ),
)


# Rules that see all inputs and outputs.
WIDE_RULES = (*spec_integers.RULES, *spec_floats.RULES)
WIDE_FILE_RULES = (*spec_integers.FILE_RULES, *spec_floats.FILE_RULES)


def check(graph: ir.Graph, *, lowered: bool = False) -> None:
    """Check a graph against the rules, with `lowered` those of the file too.

    Raises:
        SpecError: names the op or tensor and the rule.
    """
    for tensor in graph.tensors.values():
        _check_tensor(tensor)
        if lowered and tensor.dtype is DType.INT64:
            raise SpecError(f"tensor {tensor.name!r} is int64, exact; a file holds such integers as constants only")
    for name in (*graph.inputs, *(graph.outputs if lowered else ())):
        tensor = graph.tensors[name]
        if tensor.dtype is not DType.FLOAT32:
            raise SpecError(f"tensor {name!r} is {tensor.dtype.name.lower()}; inputs and outputs must be float32")
    if len(set(graph.inputs)) != len(graph.inputs) or not graph.outputs:
        raise SpecError(f"inputs {graph.inputs} must differ and outputs {graph.outputs} must not be empty")
    if lowered and len(set(graph.outputs)) != len(graph.outputs):
        raise SpecError(f"outputs {graph.outputs} must differ")
    written = set(graph.inputs)
    for op in graph.ops:
        _check_op(graph, op, written, lowered)
        written.update(op.outputs)
    if lowered:
        try:
            ir.ranges(graph)
        except ir.RangeError as error:
            raise SpecError(str(error)) from None
    unwritten = [t for t in graph.tensors if t not in written]
    if unwritten:
        raise SpecError(f"tensors {unwritten} are written by no op")


def _check_tensor(tensor: Tensor) -> None:
    if not 1 <= len(tensor.shape) <= 3 or not all(0 < axis < MAX_AXIS for axis in tensor.shape):
        raise SpecError(
            f"tensor {tensor.name!r} has shape {tensor.shape}; accepted are (channels,), (length, channels) and "
            "(height, width, channels)"
        )
    if count(tensor.shape) >= MAX_ELEMENTS:
        raise SpecError(f"tensor {tensor.name!r} has {count(tensor.shape)} elements; accepted are below {MAX_ELEMENTS}")
    if tensor.fraction_bits and (
        tensor.dtype not in ir.INTEGERS
        or len(tensor.fraction_bits) not in (1, tensor.channels)
        or not all(-128 <= f <= 127 for f in tensor.fraction_bits)
    ):
        raise SpecError(
            f"tensor {tensor.name!r}, {tensor.dtype.name.lower()} {tensor.shape}, has {len(tensor.fraction_bits)} "
            f"fraction bits; integers have none, one, or one per channel, from -128 to 127"
        )


def _check_op(graph: ir.Graph, op: ir.Op, written: set[str], lowered: bool) -> None:
    where = f"op {op.name!r} ({op.type})"
    if spec_integers.wrong_arity(op):
        raise SpecError(f"{where} has {len(op.inputs)} inputs and {len(op.outputs)} outputs, which it cannot have")
    for name in op.inputs:
        if name not in written:
            raise SpecError(f"{where} reads tensor {name!r} before it is written")
    for place, name in enumerate(op.outputs):
        if name in written or name in op.outputs[:place]:
            raise SpecError(f"{where} writes tensor {name!r}, which is an input or has a producer already")
    if lowered and not isinstance(op, FILE_OPS):
        raise SpecError(f"{where} is not an op of the file")
    source, result = graph.source(op), graph.result(op)
    for rule in (*RULES, *(FILE_RULES if lowered else ())):
        if isinstance(op, rule.types) and not rule.holds(op, source, result):
            raise SpecError(f"{where} breaks the rule '{rule.text}'; input {_words(source)}, output {_words(result)}")
    sources, results = graph.sources(op), graph.results(op)
    for wide in (*WIDE_RULES, *(WIDE_FILE_RULES if lowered else ())):
        if isinstance(op, wide.types) and not wide.holds(op, sources, results):
            words = ", ".join(_words(tensor) for tensor in (*sources, *results))
            raise SpecError(f"{where} breaks the rule '{wide.text}'; inputs and outputs {words}")


def _words(tensor: Tensor) -> str:
    return f"{tensor.name!r} {tensor.dtype.name.lower()} {list(tensor.shape)}"
