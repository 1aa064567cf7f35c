"""Give every output of the model the type that Keras gives it: float32."""

from __future__ import annotations

import dataclasses

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Graph, Replacement


def float_outputs(graph: Graph) -> Graph:
    """Output X of bits or integers ⇒ the same tensor under the name X:bits or X:integers, then Unpack, Affine or
    Elementwise to X.

    An integer counts as q * 2^-f and a bit as +1 or -1, so the values are equal; exact integers, which Keras hands out
    in float64, are rounded once to float32. It does not fire on float32 outputs, nor on an output that is an input. It
    ends because each output is rewritten at most once.
    """
    for name in dict.fromkeys(graph.outputs):
        graph = _float_output(graph, name)
    return graph


def _float_output(graph: Graph, name: str) -> Graph:
    tensor, producer = graph.tensors[name], graph.producer(name)
    if tensor.dtype is DType.FLOAT32 or producer is None:
        return graph
    kind = "bits" if tensor.dtype is DType.BIT else "integers"
    inner = dataclasses.replace(tensor, name=graph.unused_name(f"{name}:{kind}"))
    outer = ir.Tensor(name, DType.FLOAT32, tensor.shape)
    readers = graph.consumers(name)
    added = (
        dataclasses.replace(producer, outputs=(inner.name,)),
        ir.to_float(producer.name, inner, name),
        *(ir.redirect(reader, name, inner.name) for reader in readers),
    )
    return graph.replace(Replacement((producer, *readers), added, (inner, outer)))
