"""Join int8 convolutions of one input whose outputs are joined.

A group of channels that a layer of its own convolves (a split, convolutions of the parts, a concatenation, as in
MeliusNet) is a convolution of all channels with weights of 0 on the others, after `lower_channels`. Its filters are
those of one convolution, one after the other. That has the same multiply-accumulates, reads its input once, writes
where the concatenation would have copied to, and fills the lanes that a few filters leave empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larq_clip.converter import ir
from larq_clip.converter.ir import FixedPoint, Graph, Op, Replacement, Step, StepKind, Store
from larq_clip.converter.passes.base import apply_everywhere


def join_convolutions(graph: Graph) -> Graph:
    """Concatenate of Int8Conv2D of one input  ⇒  one Int8Conv2D with all their filters.

    Equal because each filter keeps its weights, bias, steps and store. It does not fire where the convolutions have
    different inputs or windows, groups, operands of sums, steps of different kinds, or outputs of different types, nor
    where anything else reads one of them. It ends because each rewrite removes a Concatenate.
    """
    return apply_everywhere(graph, _rewrite)


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.Concatenate):
        return None
    parts = [graph.producer(name) for name in op.inputs]
    convolutions = [part for part in parts if isinstance(part, ir.Int8Conv2D) and _fits(graph, part, op)]
    if len(convolutions) != len(parts) or len({_kind(part) for part in convolutions}) != 1:
        return None
    joined = dataclasses.replace(
        convolutions[0],
        name=ir.join_names(*convolutions, op),
        outputs=op.outputs,
        weights=np.concatenate([part.weights for part in convolutions]),
        bias=_joined(convolutions, [part.bias for part in convolutions]),
        fixed_point=_joined_steps(convolutions),
    )
    return Replacement((*convolutions, op), (joined,))


def _fits(graph: Graph, part: ir.Int8Conv2D, reader: Op) -> bool:
    """Whether a convolution has one input, no groups and one output, which is stored as the reader joins it."""
    alone = part.groups == 1 and len(part.inputs) == len(part.outputs) == 1
    return (
        alone and graph.only_consumer(part.output) is reader and graph.result(part).dtype is graph.result(reader).dtype
    )


def _kind(part: ir.Int8Conv2D) -> Any:
    """What all convolutions that become one have in common."""
    return part.input, part.window, tuple(step.kind for step in part.fixed_point.steps)


def _joined_steps(parts: Sequence[ir.Int8Conv2D]) -> FixedPoint:
    steps = []
    for same in zip(*(part.fixed_point.steps for part in parts), strict=True):
        if same[0].kind is StepKind.AFFINE:
            offset = _joined(parts, [step.offset for step in same])
            steps.append(Step(StepKind.AFFINE, _joined(parts, [step.multiplier for step in same]), offset))
        else:
            steps.append(same[0])  # a relu, since without operands there is no sum
    shift = _joined(parts, [part.fixed_point.stores[0].shift for part in parts])
    return FixedPoint(tuple(steps), (Store(shift),))


def _joined(parts: Sequence[ir.Int8Conv2D], constants: Sequence[NDArray | None]) -> Any:
    """Constants by channel one after the other, 0 where one has none; none where none has any."""
    given = [constant for constant in constants if constant is not None]
    if not given:
        return None
    channels = [len(part.weights) for part in parts]
    filled = [np.zeros(n, given[0].dtype) if c is None else c for c, n in zip(constants, channels, strict=True)]
    return np.concatenate(filled)
