"""Why an op of a file reads or writes float32."""

from __future__ import annotations

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Epilogue


def float_reason(graph: ir.Graph, op: ir.Op) -> str | None:
    """A few words, or none for an op of bits and integers alone."""
    reads = [tensor.name for tensor in graph.sources(op) if tensor.dtype is DType.FLOAT32]
    writes = [tensor.name for tensor in graph.results(op) if tensor.dtype is DType.FLOAT32]
    if not reads and not writes:
        return None
    if isinstance(op, ir.Conv2D):
        return "a layer of full precision: its kernel is float32"
    if isinstance(op, ir.Softmax):
        return "softmax is computed in float32"
    if reads and not writes:
        where = "of the image, which is" if reads[0] in graph.inputs else "of"
        return f"makes {'bits' if graph.result(op).dtype is DType.BIT else 'integers'} {where} float32"
    if reads:
        return f"its input {reads[0]!r} is float32"
    if isinstance(op, ir.BinaryConv2D) and op.epilogue is Epilogue.AFFINE and not set(writes) & set(graph.outputs):
        return "what follows its accumulator was not quantized"
    if set(writes) & set(graph.outputs):
        return "writes an output of the model, which is float32"
    readers = [reader.name for name in writes for reader in graph.consumers(name)]
    return f"{readers[0]!r} behind it computes in float32"
