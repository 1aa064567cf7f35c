"""Lower the batch norms that are left to a multiplication and an addition per channel."""

from __future__ import annotations

import numpy as np

from larq_clip.converter import ir
from larq_clip.converter.ir import Graph, Op, Replacement
from larq_clip.converter.passes.base import apply_everywhere
from larq_clip.converter.passes.fold_batch_norm import scale_and_offset


def lower_batch_norm(graph: Graph) -> Graph:
    """BatchNorm  ⇒  Affine(multiplier s, offset t), s = gamma / sqrt(variance + epsilon), t = beta − mean·s.

    s and t are computed in float64 and rounded once; the result is equal to Keras up to float32 rounding. It fires
    on every BatchNorm, and ends because each rewrite removes one.
    """
    return apply_everywhere(graph, _rewrite)


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.BatchNorm):
        return None
    scale, offset = scale_and_offset(op)
    affine = ir.Affine(op.name, op.inputs, op.outputs, scale.astype(np.float32), offset.astype(np.float32))
    return Replacement((op,), (affine,))
