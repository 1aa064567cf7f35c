"""What a converted model consists of, op by op, as plain numbers and strings; no TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

from larq_clip.converter import codec, ir, memory, packing, reader, writer
from larq_clip.converter.codec import Kind
from larq_clip.converter.ir import Epilogue, image_shape


def describe(model: ir.Graph | bytes) -> dict[str, Any]:
    """A report on a lowered graph, or on the bytes of a model file.

    Returns:
        ``name``, ``producer``, ``ops`` (a list, in order of execution), and totals: ``file_bytes``, ``weight_bytes``
        (constants as stored), ``ideal_weight_bytes`` (1 bit a binary number, 4 bytes a float, without rounding up to
        words), ``arena_bytes``, ``arena_lower_bound_bytes`` (the largest sum of tensors live at once),
        ``binary_macs``, ``int8_macs`` and ``float_macs`` of one image. Of each op: ``name``, ``type``, ``inputs`` and
        ``outputs`` (name, dtype, shape), ``epilogue``, ``clip_limit`` and ``step`` (binary convolutions),
        ``fixed_point`` (steps of a fixed-point epilogue, then the types it stores), ``binary_macs``, ``int8_macs``,
        ``float_macs``, ``weight_bytes``, ``threshold_dtype``, and ``constant_channels``, the share of channels whose
        sign is the same for every input. What does not apply is None.

    Raises:
        larq_clip.ModelFileError: for bytes that are not a model file.
        larq_clip.converter.spec.SpecError: for a graph that is not lowered.
    """
    data = model if isinstance(model, bytes) else writer.write(model)
    file = reader.read_model(data)
    graph = file.graph
    ops = [_describe_op(graph, op) for op in graph.ops]
    return {
        "name": graph.name,
        "producer": file.producer,
        "inputs": [_tensor(graph.tensors[name]) for name in graph.inputs],
        "outputs": [_tensor(graph.tensors[name]) for name in graph.outputs],
        "ops": ops,
        "file_bytes": file.file_bytes,
        "weight_bytes": sum(op["weight_bytes"] for op in ops),
        "ideal_weight_bytes": sum(_ideal_bytes(op) for op in graph.ops),
        "arena_bytes": file.arena_bytes,
        "arena_lower_bound_bytes": memory.plan(graph).lower_bound,
        "binary_macs": sum(op["binary_macs"] for op in ops),
        "int8_macs": sum(op["int8_macs"] for op in ops),
        "float_macs": sum(op["float_macs"] for op in ops),
    }


def _tensor(tensor: ir.Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype.name.lower(), "shape": list(tensor.shape)}


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
        "weight_bytes": sum(dtype.stored_bytes(array.shape) for dtype, array in constants),
        "threshold_dtype": None if thresholds is None else thresholds.dtype.name,
        "constant_channels": _constant_channels(graph, op),
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


def _ideal_bytes(op: ir.Op) -> int:
    """Bytes of an op's constants, bits packed without gaps and rounded up once."""
    total_bits = 0
    for field, array in codec.constants_of(op):
        dtype = _dtype(field, array)
        total_bits += array.size * (1 if dtype is ir.DType.BIT else 8 * dtype.numpy.itemsize)
    return -(-total_bits // 8)


def _macs(graph: ir.Graph, op: ir.Op | Any) -> int:
    """Multiply-accumulates of one image, taps outside the image included."""
    height, width, _ = image_shape(graph.result(op).shape)
    return height * width * int(op.weights.size)


def _constant_channels(graph: ir.Graph, op: ir.Op) -> float | None:
    """Share of the thresholds that no value, or every value, is above."""
    if isinstance(op, ir.BinaryConv2D) and op.epilogue is Epilogue.THRESHOLD and op.thresholds is not None:
        limit = op.clip_limit or op.k
        return float(np.mean((op.thresholds < -limit) | (op.thresholds >= limit)))
    if isinstance(op, ir.Bitpack) and op.thresholds is not None:
        if graph.source(op).dtype is ir.DType.FLOAT32:
            return float(np.mean(np.isinf(op.thresholds)))
        info = np.iinfo(op.thresholds.dtype)
        return float(np.mean((op.thresholds == info.min) | (op.thresholds == info.max)))
    return None
