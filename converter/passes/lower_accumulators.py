"""Give the binary convolutions that are still needed as numbers an epilogue of the file."""

from __future__ import annotations

import dataclasses

import numpy as np

from larq_clip.converter import ir
from larq_clip.converter.ir import Activation, DType, Epilogue, Graph, Op, Replacement, Tensor
from larq_clip.converter.passes.base import apply_everywhere


def lower_accumulators(graph: Graph) -> Graph:
    """Four rewrites, the first that applies:

        BinaryConv2D → [AccumulatorClip] → Affine  ⇒  BinaryConv2D(Affine)
        BinaryConv2D → AccumulatorClip             ⇒  BinaryConv2D(Clip), int8
        BinaryConv2D → AccumulatorClip, int16      ⇒  BinaryConv2D(FixedPoint) without steps
        BinaryConv2D                               ⇒  BinaryConv2D(Affine, multiplier 1, offset 0), float32

    The first needs tensors in between that nothing else reads and an Affine without activation. A clip to more than
    8 bits that is not int16 takes the last form, with its clip. Accumulators are below 2^24 in magnitude or rounded as
    Keras rounds them, so float32 holds the same values; what pools or moves them becomes float32 too. It does not
    fire on a convolution that has an epilogue. It ends because each rewrite gives one an epilogue.
    """
    return _carry_types(apply_everywhere(graph, _rewrite))


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.BinaryConv2D) or op.epilogue is not Epilogue.ACCUMULATOR:
        return None
    swallowed: list[Op] = [op]
    clip = graph.only_consumer(op.output)
    if isinstance(clip, ir.AccumulatorClip):
        swallowed.append(clip)
        op = dataclasses.replace(op, clip_limit=clip.limit, step_log2=clip.step_log2)
    channels = op.out_channels
    multiplier, offset = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    affine = graph.only_consumer(swallowed[-1].output)
    if isinstance(affine, ir.Affine) and affine.activation == Activation.NONE:
        swallowed.append(affine)
        multiplier = multiplier if affine.multiplier is None else affine.multiplier
        offset = offset if affine.offset is None else affine.offset
    elif op.clip_limit and graph.result(swallowed[-1]).dtype is DType.INT8:
        fused = dataclasses.replace(op, outputs=swallowed[-1].outputs, epilogue=Epilogue.CLIP)
        return Replacement(tuple(swallowed), (fused,))
    elif op.clip_limit and graph.result(swallowed[-1]).dtype is DType.INT16:
        fused = dataclasses.replace(
            op, outputs=swallowed[-1].outputs, epilogue=Epilogue.FIXED_POINT, fixed_point=ir.FixedPoint()
        )
        return Replacement(tuple(swallowed), (fused,))
    last = graph.result(swallowed[-1])
    fused = dataclasses.replace(
        op,
        name=ir.join_names(*swallowed),
        outputs=(last.name,),
        epilogue=Epilogue.AFFINE,
        multiplier=multiplier,
        offset=offset,
    )
    return Replacement(tuple(swallowed), (fused,), (Tensor(last.name, DType.FLOAT32, last.shape),))


def _carry_types(graph: Graph) -> Graph:
    """Max pools and moves of elements write the type that they read."""
    tensors = dict(graph.tensors)
    for op in graph.ops:
        if isinstance(op, (ir.MaxPool2D, ir.Reshape, ir.Slice, ir.DepthToSpace)):
            source, result = tensors[op.input], tensors[op.output]
            if source.dtype is not result.dtype:
                tensors[op.output] = source.reshaped(result.name, result.shape)
    return Graph.build(graph.name, tensors.values(), graph.ops, graph.inputs, graph.outputs)
