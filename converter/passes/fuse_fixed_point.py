"""Turn chains of exact integers into fixed-point epilogues, which round once, where they store (section 3.2).

The algebra. An exact tensor T holds integers y that its producer computes element by element from what it starts from:
a clipped accumulator, the sum of an int8 convolution, or a stored tensor. What reads T goes on element by element, so

    1.  steps after steps are the steps one after the other, and operands of sums keep their places behind the others';
    2.  two affine steps are one, m2 (m1 y + t1) + t2 = (m2 m1) y + (m2 t1 + t2);
    3.  several readers that all write y somewhere, rounded to 8 or 16 bits, to float32 or as a sign, are as many stores
        of one op: the sign is that of the exact y, taken before rounding;
    4.  where y cannot leave the type that it is stored in, storing it unshifted changes nothing: the relu of a clipped
        accumulator is exact in 8 bits.
"""

from __future__ import annotations

import dataclasses

from larq_clip.arithmetic import clip_limit
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Epilogue, FixedPoint, Graph, Op, Replacement, Store
from larq_clip.converter.passes.base import apply_everywhere
from larq_clip.errors import ConversionError


def fuse_fixed_point(graph: Graph) -> Graph:
    """Three rewrites, the first that applies:

        BinaryConv2D → [AccumulatorClip] → Elementwise  ⇒  BinaryConv2D(FixedPoint)
        X → T → Elementwise                             ⇒  X with its steps, then those of the Elementwise
        X → T → stores                                  ⇒  X with a store for each

    where X is an op with fixed-point steps, T its only output, an exact tensor or one that is stored without change,
    and a store is an Elementwise without steps or a Bitpack. The first two need a T that nothing else reads, and that
    the Elementwise starts from; the third needs an exact T.

    It does not fire on an AccumulatorClip that others read: that is stored, in 8 bits, and they start from it. It ends
    because each rewrite removes an op.

    Raises:
        ConversionError: where an exact tensor is left; names the layer, why, and what to do.
    """
    graph = apply_everywhere(graph, _rewrite)
    for name, tensor in graph.tensors.items():
        if tensor.dtype is DType.INT64:
            raise _left(graph, name)
    return graph


def steps_of(op: Op | None) -> FixedPoint | None:
    """The fixed-point epilogue of an op, if it has one."""
    return getattr(op, "fixed_point", None)


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if isinstance(op, ir.BinaryConv2D) and op.epilogue is Epilogue.ACCUMULATOR:
        return _into_accumulator(graph, op)
    own = steps_of(op)
    if own is None or len(op.outputs) != 1:
        return None
    exact = graph.result(op).dtype is DType.INT64
    reader = graph.only_consumer(op.output)
    if isinstance(reader, ir.Elementwise) and reader.input == op.output and (exact or _stores_unchanged(graph, op)):
        return Replacement((op, reader), (_joined(op, reader),))
    if not exact:
        return None
    readers = graph.consumers(op.output)
    if op.output in graph.outputs or not all(_is_store(reader, op.output) for reader in readers):
        return None
    fused = dataclasses.replace(
        op,
        name=ir.join_names(op, *readers),
        outputs=tuple(name for reader in readers for name in reader.outputs),
        fixed_point=FixedPoint(own.steps, tuple(store for reader in readers for store in _stores(reader))),
    )
    return Replacement((op, *readers), (fused,))


def _stores_unchanged(graph: Graph, op: Op) -> bool:
    """Whether the only output of an op holds every y, so that storing it neither rounds nor saturates."""
    own, result = steps_of(op), graph.result(op)
    assert own is not None
    if result.dtype not in ir.STORED or own.stores[0].shift is not None:
        return False
    found = {t.name: ir.Range.of_type(t) for t in graph.sources(op) if t.dtype in ir.STORED}
    if isinstance(op, ir.Elementwise) and op.input not in found:
        return False
    reach = own.ranges(ir.start(graph, op, found), [found.get(name) for name in op.inputs])
    return reach.largest <= clip_limit(8 * result.dtype.numpy.itemsize)


def _into_accumulator(graph: Graph, conv: ir.BinaryConv2D) -> Replacement | None:
    swallowed: list[Op] = [conv]
    clip = graph.only_consumer(conv.output)
    if isinstance(clip, ir.AccumulatorClip):
        swallowed.append(clip)
        conv = dataclasses.replace(conv, clip_limit=clip.limit, step_log2=clip.step_log2)
    reader = graph.only_consumer(swallowed[-1].output)
    if not isinstance(reader, ir.Elementwise) or reader.input != swallowed[-1].output:
        return None
    start = dataclasses.replace(
        conv, name=ir.join_names(*swallowed), epilogue=Epilogue.FIXED_POINT, fixed_point=FixedPoint()
    )
    return Replacement((*swallowed, reader), (_joined(start, reader),))


def _joined(op: Op, reader: ir.Elementwise) -> Op:
    """An op with the steps and stores of the Elementwise behind it."""
    own = steps_of(op)
    assert own is not None
    moved = len(op.inputs) - 1
    steps = tuple(
        dataclasses.replace(step, operand=step.operand + moved) if step.kind is ir.StepKind.ADD else step
        for step in reader.fixed_point.steps
    )
    return dataclasses.replace(
        op,
        name=ir.join_names(op, reader),
        inputs=(*op.inputs, *reader.inputs[1:]),
        outputs=reader.outputs,
        fixed_point=FixedPoint(ir.merged(own.steps, steps), reader.fixed_point.stores),
    )


def _is_store(reader: Op, tensor: str) -> bool:
    if isinstance(reader, ir.Elementwise):
        return reader.only_stores and reader.inputs == (tensor,)
    return isinstance(reader, ir.Bitpack) and len(reader.outputs) == 1


def _stores(reader: Op) -> tuple[Store, ...]:
    if isinstance(reader, ir.Bitpack):
        return (Store(thresholds=reader.thresholds, invert=reader.invert),)
    assert isinstance(reader, ir.Elementwise)
    return reader.fixed_point.stores


def _left(graph: Graph, name: str) -> ConversionError:
    """The error for an exact tensor that no epilogue takes."""
    readers = graph.consumers(name)
    names = [reader.name for reader in readers]
    producer = graph.producer(name)
    why = f"layers {names} read it at full precision"
    if producer is not None and steps_of(producer) is None:
        why = f"layer {producer.name!r} ({producer.type}) moves elements, which it can of stored tensors only"
    elif any(name in reader.inputs[1:] for reader in readers):
        why = f"layer {names[0]!r} adds it to another exact tensor, and only one operand can be added as it is computed"
    elif len(readers) == 1:
        why = f"layer {names[0]!r} ({readers[0].type}) reads it, which takes stored tensors only"
    return ConversionError(
        f"the exact integers {name!r} are never stored: {why}. Put a larq_clip.layers.StorageQuantizer behind it, or "
        "make the model with larq_clip.models.quantize_model"
    )
