"""Let the weights of an int8 convolution move channels.

A channel is the sum of all channels times 0, save itself, times 1. So picking channels, and putting channels of zeros
beside them, is a 1×1 convolution with weights 0 and 1, exact as any other; and in front of a convolution it is a
matter of where its weights stand:

    sum over k of w[k] x[channels[k]]  =  sum over c of v[c] x[c],    v[channels[k]] = w[k], else 0.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, FixedPoint, Graph, Op, Replacement, StepKind, Window
from larq_clip.converter.passes.base import apply_everywhere


def lower_channels(graph: Graph) -> Graph:
    """Three rewrites, the first that applies:

        SelectChannels → Int8Conv2D          ⇒  Int8Conv2D with its weights on those channels, 0 on the others
        x + SelectChannels, an Elementwise   ⇒  1×1 Int8Conv2D → T → Elementwise that starts from T, and adds x
        SelectChannels                       ⇒  1×1 Int8Conv2D that stores 8 bits

    T is exact, so that `fuse_fixed_point` makes the sum the convolution's. The first needs a convolution without groups
    and no channel twice, so that each weight has a place; the second a stored x, as the first or second term, and a
    selection that nothing else reads. Stored numbers are within ±127, so that storing them again changes none. It
    ends because each rewrite takes a SelectChannels from in front of an op; one without readers is none.
    """
    graph = apply_everywhere(graph, _into_weights)
    graph = apply_everywhere(graph, _into_sum)
    return apply_everywhere(graph, _into_convolution)


def _into_weights(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.Int8Conv2D) or op.groups != 1:
        return None
    select = graph.producer(op.input)
    if not isinstance(select, ir.SelectChannels):
        return None
    places = np.flatnonzero(select.channels >= 0)
    taken = select.channels[places]
    if len(np.unique(taken)) != len(taken):
        return None
    weights = np.zeros((*op.weights.shape[:-1], graph.source(select).channels), np.int8)
    weights[..., taken] = op.weights[..., places]
    moved = dataclasses.replace(op, name=ir.join_names(select, op), weights=weights)
    return Replacement((op,), (ir.redirect(moved, op.input, select.input),))


def _into_sum(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.Elementwise) or not op.fixed_point.steps:
        return None
    first, *others = op.fixed_point.steps
    if first.kind is not StepKind.ADD:
        return None
    x, other = op.inputs[:2]
    if _selection(graph, op, x) is None:  # the other way round
        x, other = other, x
        first = dataclasses.replace(first, shift=first.operand_shift, operand_shift=first.shift)
    select = _selection(graph, op, x)
    if select is None or x == other or graph.tensors[other].dtype not in ir.STORED:
        return None
    exact = dataclasses.replace(graph.result(select), dtype=DType.INT64)
    added = dataclasses.replace(
        op,
        inputs=(x, other, *op.inputs[2:]),
        fixed_point=dataclasses.replace(op.fixed_point, steps=(first, *others)),
    )
    return Replacement((select, op), (_convolution(graph, select), added), (exact,))


def _selection(graph: Graph, reader: Op, name: str) -> ir.SelectChannels | None:
    """The selection that writes a tensor which only `reader` reads."""
    producer = graph.producer(name)
    return producer if isinstance(producer, ir.SelectChannels) and graph.only_consumer(name) is reader else None


def _into_convolution(graph: Graph, op: Op) -> Replacement | None:
    return Replacement((op,), (_convolution(graph, op),)) if isinstance(op, ir.SelectChannels) else None


def _convolution(graph: Graph, select: ir.SelectChannels) -> ir.Int8Conv2D:
    weights: NDArray[np.int8] = np.zeros((len(select.channels), 1, 1, graph.source(select).channels), np.int8)
    places = np.flatnonzero(select.channels >= 0)
    weights[places, 0, 0, select.channels[places]] = 1
    return ir.Int8Conv2D(select.name, select.inputs, select.outputs, Window(), weights, fixed_point=FixedPoint())
