"""Apply a relu in the op before it."""

from __future__ import annotations

import dataclasses

from larq_clip.converter import ir
from larq_clip.converter.ir import Activation, Graph, Op, Replacement
from larq_clip.converter.passes.base import apply_everywhere


def fuse_activations(graph: Graph) -> Graph:
    """Conv2D or Affine → Affine that is a relu alone  ⇒  the former, with its activation.

    Equal because both apply the activation last. It does not fire where another op reads the tensor in between,
    where the former has an activation, or where the Affine multiplies or adds. It ends because each rewrite removes
    an op.
    """
    return apply_everywhere(graph, _rewrite)


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.Affine) or op.activation == Activation.NONE:
        return None
    if op.multiplier is not None or op.offset is not None or graph.only_consumer(op.input) is not op:
        return None
    before = graph.producer(op.input)
    if not isinstance(before, (ir.Conv2D, ir.Affine)) or before.activation != Activation.NONE:
        return None
    fused = dataclasses.replace(before, name=ir.join_names(before, op), outputs=op.outputs, activation=op.activation)
    return Replacement((before, op), (fused,))
