"""What a converted model consists of, op by op, as plain numbers and strings; no TensorFlow."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from larq_clip.converter import codec, ir, memory, packing, reader, writer
from larq_clip.converter.codec import Kind
from larq_clip.converter.float_reasons import float_reason
from larq_clip.converter.ir import image_shape

REPORT_VERSION = 1  # of the keys; README.md says what each means


def describe(model: ir.Graph | bytes) -> dict[str, Any]:
    """A report on a lowered graph, or on the bytes of a model file.

    Returns:
        What `larq-clip inspect --json` prints, without what only running the file tells; the converter's README.md
        says what each key means.

    Raises:
        larq_clip.ModelFileError: for bytes that are not a model file.
        larq_clip.converter.spec.SpecError: for a graph that is not lowered.
    """
    data = model if isinstance(model, bytes) else writer.write(model)
    file = reader.read_model(data)
    graph = file.graph
    ops = [_describe_op(graph, op) for op in graph.ops]
    ideal = _ideal_bytes(graph)
    lower_bound = memory.plan(graph).lower_bound
    return {
        "report_version": REPORT_VERSION,
        "name": graph.name,
        "producer": file.producer,
        "inputs": [_tensor(graph.tensors[name]) for name in graph.inputs],
        "outputs": [_tensor(graph.tensors[name]) for name in graph.outputs],
        "ops": ops,
        "file_bytes": file.file_bytes,
        "weight_bytes": file.constant_bytes,
        "ideal_weight_bytes": ideal,
        "size_ratio": file.file_bytes / ideal if ideal else None,
        "arena_bytes": file.arena_bytes,
        "arena_lower_bound_bytes": lower_bound,
        "arena_ratio": file.arena_bytes / lower_bound,
        "binary_macs": sum(op["binary_macs"] for op in ops),
        "int8_macs": sum(op["int8_macs"] for op in ops),
        "float_macs": sum(op["float_macs"] for op in ops),
    }


def _tensor(tensor: ir.Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype.name.lower(),
        "shape": list(tensor.shape),
        "fraction_bits": list(tensor.fraction_bits),
        "bytes": tensor.stored_bytes,
    }


def _describe_op(graph: ir.Graph, op: ir.Op) -> dict[str, Any]:
    binary = isinstance(op, ir.BinaryConv2D)
    thresholds = getattr(op, "thresholds", None)
    constants = [(_dtype(field, array), array) for field, array in codec.constants_of(op)]
    return {
        "name": op.name,
        "type": op.type,
        "inputs": [_tensor(graph.tensors[name]) for name in op.inputs],
        "outputs": [_tensor(graph.tensors[name]) for name in op.outputs],
        "epilogue": _epilogue(op),
        "fixed_point": _fixed_point(graph, op),
        "clip_limit": op.clip_limit or None if isinstance(op, ir.BinaryConv2D) else None,
        "step": 2.0**op.step_log2 if isinstance(op, ir.BinaryConv2D) and op.clip_limit else None,
        "binary_macs": _macs(graph, op) if binary else 0,
        "int8_macs": _macs(graph, op) if isinstance(op, ir.Int8Conv2D) else 0,
        "float_macs": _macs(graph, op) if isinstance(op, ir.Conv2D) else 0,
        "weight_bytes": sum(packing.constant_bytes(dtype, array.shape) for dtype, array in constants),
        "activation_bytes": sum(tensor.stored_bytes for tensor in graph.results(op)),
        "threshold_dtype": None if thresholds is None else thresholds.dtype.name,
        "constant_channels": _constant_channels(graph, op),
        "float_reason": float_reason(graph, op),
    }


def _epilogue(op: ir.Op) -> str | None:
    """The epilogue of a binary convolution under its name in the schema."""
    if not isinstance(op, ir.BinaryConv2D):
        return None
    return "".join(part.capitalize() for part in op.epilogue.name.split("_"))


def _fixed_point(graph: ir.Graph, op: ir.Op) -> list[str] | None:
    """Steps and stores in order, such as ``["affine", "add", "int8", "bit"]``."""
    found: ir.FixedPoint | None = getattr(op, "fixed_point", None)
    if found is None:
        return None
    steps = [step.kind.name.lower() for step in found.steps]
    return [*steps, *(tensor.dtype.name.lower() for tensor in graph.results(op))]


def _dtype(field: codec.Field, array: np.ndarray) -> ir.DType:
    return packing.constant_dtype(array, bits=field.kind is Kind.BITS)


def _ideal_bytes(graph: ir.Graph) -> int:
    """Bytes of the constants of all ops, equal ones once, bits packed without gaps and each rounded up once."""
    bits: dict[tuple[ir.DType, tuple[int, ...], bytes], int] = {}
    for op in graph.ops:
        for field, array in codec.constants_of(op):
            dtype = _dtype(field, array)
            element_bits = 1 if dtype is ir.DType.BIT else 8 * dtype.numpy.itemsize
            bits[dtype, array.shape, array.tobytes()] = array.size * element_bits
    return sum(-(-size // 8) for size in bits.values())


def _macs(graph: ir.Graph, op: ir.Op | Any) -> int:
    """Multiply-accumulates of one image, taps outside the image included."""
    height, width, _ = image_shape(graph.result(op).shape)
    return height * width * int(op.weights.size)


def _constant_channels(graph: ir.Graph, op: ir.Op) -> float | None:
    """Share of an op's signs that are the same for every input: no value, or every value, is above the threshold."""
    same = [constant for bounds in signs(graph, op) for constant in bounds.is_constant]
    return float(np.mean(same)) if same else None


class Signs(NamedTuple):
    """Thresholds of one tensor of bits, ``(channels,)``, and the range of what is compared with them: its lowest value
    and its highest, by channel."""

    thresholds: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def is_constant(self) -> np.ndarray:
        """Of each channel, whether its sign is the same for every input."""
        return (self.thresholds < self.low) | (self.thresholds >= self.high)


def signs(graph: ir.Graph, op: ir.Op) -> list[Signs]:
    """The thresholds of an op, one item for each tensor of bits that it makes with them."""
    steps: ir.FixedPoint | None = getattr(op, "fixed_point", None)
    if steps is not None:
        integers = {name: ir.Range.of_type(graph.tensors[name]) for name in op.inputs}
        reached = steps.ranges(ir.start(graph, op, integers), [integers[name] for name in op.inputs])
        return [Signs(s.thresholds, *reached) for s in steps.stores if s.thresholds is not None]
    thresholds = getattr(op, "thresholds", None)
    if thresholds is None:
        return []
    low: float
    high: float
    if isinstance(op, ir.BinaryConv2D):
        high = op.clip_limit or op.k
        low = -high
    elif thresholds.dtype == np.float32:  # compared with finite numbers by >=, so that only infinities are out of reach
        low, high = float(np.finfo(np.float32).min), np.inf
    else:  # stored integers are clipped to both sides alike
        high = np.iinfo(thresholds.dtype).max
        low = -high
    return [Signs(thresholds, *(np.broadcast_to(end, thresholds.shape) for end in (low, high)))]
