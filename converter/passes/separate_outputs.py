"""Give every output of the model a tensor of its own."""

from __future__ import annotations

import dataclasses

from larq_clip.converter import ir
from larq_clip.converter.ir import Graph


def separate_outputs(graph: Graph) -> Graph:
    """Outputs X, X ⇒ X, X:again, where X → Affine that neither multiplies nor adds → X:again; inputs likewise.

    A Keras model may name one tensor twice, or an input beside its outputs, also by a layer that does nothing in
    inference (Dropout behind an output); a file may not. Equal because the copy has the same values. It does not fire
    on outputs that differ, and ends because each output is visited once.
    """
    if len({*graph.inputs, *graph.outputs}) == len(graph.inputs) + len(graph.outputs):
        return graph
    tensors, ops, outputs = dict(graph.tensors), list(graph.ops), list[str]()
    for name in graph.outputs:
        if name in outputs or name in graph.inputs:
            copy = ir.unused_name(f"{name}:again", tensors)
            ops.append(ir.Affine(copy, (name,), (copy,)))
            tensors[copy] = dataclasses.replace(tensors[name], name=copy)
            name = copy
        outputs.append(name)
    return Graph.build(graph.name, tensors.values(), ops, graph.inputs, outputs)
