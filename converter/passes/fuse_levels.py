"""Turn monotone functions before the levels of a quantizer into other thresholds of the levels.

A level n counts the thresholds t_1 <= t_2 <= ... that x reaches (DoReFa). Let F be the function between a tensor S and
x, per channel, as in `fuse_thresholds`. Where F rises, F(v) >= t_i <=> v >= T_i, T_i found on all of float32, or on the
integers that S can hold. Where it falls, F(v) >= t_i <=> not v >= T_i, and the T_i descend: sorted, they count
2^k - 1 - n, which is n with all bits inverted. Where F rises in all channels it commutes with max pools, which then act
on S. Where it falls before a pool of integers, the pool acts on -S: the symmetric integers of a clip lose nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip.arithmetic import clip_limit
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Graph, Op, Replacement, Tensor
from larq_clip.converter.passes.base import apply_everywhere
from larq_clip.converter.passes.fuse_thresholds import Chain, Follower, find_chain

Thresholds = NDArray[np.number]


def fuse_levels(graph: Graph) -> Graph:
    """S → chain → Bitpack of k planes  ⇒  S → [Elementwise] → [MaxPool2D …] → Bitpack of k planes with other thresholds

    for S of float32, stored integers or an accumulator, and a chain of BatchNorm, Affine, MaxPool2D, and for stored
    integers Elementwise. Where the function in front of a pool falls in some channel, S is what the last pool writes,
    or, for stored integers, an Elementwise multiplies that channel by -1. It does not fire where the Bitpack follows S
    or pools of S directly, or has inverted channels. It ends because each rewrite takes a BatchNorm, Affine or
    Elementwise from in front of a Bitpack. Ops that others read stay for them.
    """
    return apply_everywhere(graph, _rewrite)


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.Bitpack) or len(op.outputs) == 1 or op.invert is not None or op.thresholds is None:
        return None
    chain = find_chain(graph, op)
    if chain.root.dtype in ir.STORED:
        return _on_integers(graph, op, chain)
    if any(isinstance(step, ir.Elementwise) for step in chain.ops):
        return None
    chain = _behind_falling_pools(graph, chain)
    if chain.root.dtype not in (DType.FLOAT32, DType.INT32) or _is_pools(chain.ops):
        return None
    thresholds, falls = _thresholds(graph, chain, op.thresholds)
    pools = [step for step in chain.ops if isinstance(step, ir.MaxPool2D)]
    return _replaced(graph, chain, op, [(pool, None) for pool in pools], thresholds, falls)


def _is_pools(ops: list[Op]) -> bool:
    return all(isinstance(op, ir.MaxPool2D) for op in ops)


def _is_negation(graph: Graph, op: Op) -> bool:
    """Whether an op is one that this pass puts in front of a pool: it negates channels of stored integers."""
    if not isinstance(op, ir.Elementwise) or graph.result(op).dtype not in ir.STORED or len(op.fixed_point.steps) != 1:
        return False
    (step,) = op.fixed_point.steps
    return step.multiplier is not None and step.offset is None and bool(np.all(np.abs(step.multiplier) == 1))


def _on_integers(graph: Graph, op: ir.Bitpack, chain: Chain) -> Replacement | None:
    root = chain.root
    if all(isinstance(step, ir.MaxPool2D) or _is_negation(graph, step) for step in chain.ops):
        return None
    assert op.thresholds is not None
    limit = clip_limit(8 * root.dtype.numpy.itemsize)
    pools = [step for step in chain.ops if isinstance(step, ir.MaxPool2D)]
    ends = np.array([-limit, limit])
    negated = [falls.astype(bool) for falls in Follower(graph, chain, root).falls_at_pools(ends)]
    before = [np.zeros(root.channels, bool), *negated]  # whether a channel is negated as a pool, or the end, is reached
    found = []
    for row in op.thresholds:
        sign = ir.Bitpack(chain.sign.name, chain.sign.inputs, chain.sign.outputs[:1], row)
        follow = Follower(graph, chain._replace(sign=sign), root)
        found.append(follow.integer_thresholds(limit, np.where(before[-1], -1, 1)))
    falls = np.any([level.invert for level in found], axis=0)
    # A level that does not flip is always or never reached, which a falling channel expresses the other way round.
    rows = [np.where(level.invert == falls, level.threshold, -1 - level.threshold) for level in found]
    thresholds = np.sort(np.asarray(rows), axis=0).astype(root.dtype.numpy)
    turned = [now ^ then for now, then in zip(negated, before)]
    return _replaced(graph, chain, op, list(zip(pools, turned)), thresholds, falls)


def _replaced(
    graph: Graph,
    chain: Chain,
    op: ir.Bitpack,
    pools: list[tuple[Op, NDArray[np.bool_] | None]],
    thresholds: Thresholds,
    falls: NDArray[np.bool_],
) -> Replacement:
    """The Bitpack with other thresholds behind the root's pools, each with the channels to negate in front of it."""
    added: list[Op] = []
    tensors: list[Tensor] = []
    source = chain.root

    def then(new: Op, shape: tuple[int, ...]) -> None:
        nonlocal source
        name = graph.unused_name(f"{op.outputs[0]}:{new.name}")
        tensors.append(dataclasses.replace(source, name=name, shape=shape))
        added.append(dataclasses.replace(new, inputs=(source.name,), outputs=(name,)))
        source = tensors[-1]

    for pool, turned in pools:
        if turned is not None and np.any(turned):
            steps = ir.affine_step(np.where(turned, -1, 1))
            then(ir.Elementwise(f"{pool.name}:negated", (), (), ir.FixedPoint(steps)), source.shape)
        then(pool, graph.result(pool).shape)
    name = ir.join_names(*chain.ops, op)
    invert = falls.astype(np.uint8) if np.any(falls) else None
    added.append(ir.Bitpack(name, (source.name,), op.outputs, thresholds, invert))
    return Replacement((op,), tuple(added), tuple(tensors))


def _follower(graph: Graph, chain: Chain) -> Follower:
    # Accumulators that are not fused into a convolution are stored as float32, see `lower_accumulators`.
    root = dataclasses.replace(chain.root, dtype=DType.FLOAT32) if chain.root.dtype is DType.INT32 else chain.root
    return Follower(graph, chain, root)


def _behind_falling_pools(graph: Graph, chain: Chain) -> Chain:
    """The chain, or what of it lies behind its last pool where a function in front of a pool falls."""
    pools = [place for place, op in enumerate(chain.ops) if isinstance(op, ir.MaxPool2D)]
    if not pools or chain.root.dtype not in (DType.FLOAT32, DType.INT32):
        return chain
    follow = _follower(graph, chain)
    largest = follow.largest_float()
    if not any(np.any(falls) for falls in follow.falls_at_pools(np.array([-largest, largest], np.float32))):
        return chain
    last = chain.ops[pools[-1]]
    return Chain(graph.result(last), chain.ops[pools[-1] + 1 :], chain.sign)


def _thresholds(
    graph: Graph, chain: Chain, wanted: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Thresholds on the root ``(2^k - 1, channels)``, ascending, and in which channels the function falls."""
    channels, largest = chain.root.channels, _follower(graph, chain).largest_float()
    found = []
    for row in wanted:
        sign = ir.Bitpack(chain.sign.name, chain.sign.inputs, chain.sign.outputs[:1], row)
        follow = _follower(graph, chain._replace(sign=sign))
        found.append(arithmetic.find_float_thresholds(channels, follow.sign_bits, largest))
    falls = np.any([level.invert for level in found], axis=0)
    # A level that does not flip is always or never reached, which a falling channel expresses the other way round.
    rows = [np.where(level.invert == falls, level.threshold, -level.threshold) for level in found]
    return np.sort(np.asarray(rows, np.float32), axis=0), falls
