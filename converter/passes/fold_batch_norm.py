"""Fold batch norm into the weights of full-precision layers.

gamma (w·x + b − mean) / sqrt(variance + epsilon) + beta  =  (s w)·x + s (b − mean) + beta,
s = gamma / sqrt(variance + epsilon).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from larq_clip.converter import ir
from larq_clip.converter.ir import Activation, Graph, Op, Replacement
from larq_clip.converter.passes.base import apply_everywhere


def fold_batch_norm(graph: Graph) -> Graph:
    """Conv2D → BatchNorm  ⇒  Conv2D with other weights and bias, computed in float64 and rounded once.

    Equal up to float32 rounding, therefore it does not fire where a sign depends on the result before the next
    layer with weights (a sign near zero must see what Keras computes), nor after an activation, nor where another op
    reads the convolution. It ends because each rewrite removes a BatchNorm.
    """
    return apply_everywhere(graph, _rewrite)


def scale_and_offset(norm: ir.BatchNorm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """s and t of y = s·x + t, in float64."""
    scale = norm.gamma.astype(np.float64) / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
    return scale, norm.beta.astype(np.float64) - norm.mean.astype(np.float64) * scale


def sign_follows(graph: Graph, tensor: str) -> bool:
    """Whether a Bitpack depends on a tensor with neither a layer with weights nor a rounded tensor in between."""
    for reader in graph.consumers(tensor):
        if isinstance(reader, ir.Bitpack):
            return True
        ends = isinstance(reader, (ir.Conv2D, ir.BinaryConv2D, ir.Int8Conv2D, ir.Quantize))
        if not ends and any(sign_follows(graph, output) for output in reader.outputs):
            return True
    return False


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.BatchNorm) or graph.only_consumer(op.input) is not op:
        return None
    conv = graph.producer(op.input)
    if not isinstance(conv, ir.Conv2D) or conv.activation != Activation.NONE or sign_follows(graph, op.output):
        return None
    scale, offset = scale_and_offset(op)
    bias = np.zeros_like(scale) if conv.bias is None else conv.bias.astype(np.float64)
    folded = dataclasses.replace(
        conv,
        name=ir.join_names(conv, op),
        outputs=op.outputs,
        weights=(conv.weights.astype(np.float64) * scale).astype(np.float32),
        bias=(bias * scale + offset).astype(np.float32),
    )
    return Replacement((conv, op), (folded,))
