"""Lower the batch norms that are left to a multiplication and an addition per channel."""

from __future__ import annotations

import numpy as np

from larq_clip.converter import ir
from larq_clip.converter.ir import Activation, Graph, Op, Replacement
from larq_clip.converter.passes.base import apply_everywhere
from larq_clip.converter.passes.fold_batch_norm import scale_and_offset


def lower_batch_norm(graph: Graph) -> Graph:
    """BatchNorm  ⇒  Affine(multiplier s, offset t), s = gamma / sqrt(variance + epsilon), t = beta − mean·s,
    Affine(m, b) → BatchNorm  ⇒  Affine(multiplier s·m, offset s·b + t).

    The constants are computed in float64 and rounded once; the result is equal to Keras up to float32 rounding. The
    second takes an Affine without activation that nothing else reads, the scale of a binary kernel or a bias. It fires
    on every BatchNorm, and ends because each rewrite removes one.
    """
    return apply_everywhere(graph, _rewrite)


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.BatchNorm):
        return None
    scale, offset = scale_and_offset(op)
    removed: tuple[Op, ...] = (op,)
    before, inputs, name = graph.producer(op.input), op.inputs, op.name
    if isinstance(before, ir.Affine) and before.activation == Activation.NONE and graph.only_consumer(op.input) is op:
        offset = offset if before.offset is None else offset + scale * before.offset
        scale = scale if before.multiplier is None else scale * before.multiplier
        removed, inputs, name = (before, op), before.inputs, ir.join_names(before, op)
    affine = ir.Affine(name, inputs, op.outputs, scale.astype(np.float32), offset.astype(np.float32))
    return Replacement(removed, (affine,))
