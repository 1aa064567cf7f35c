"""Turn monotone functions before the levels of a quantizer into other thresholds of the levels.

A level n counts the thresholds t_1 <= t_2 <= ... that x reaches (DoReFa). Let F be the function between a tensor S and
x, per channel, as in `fuse_thresholds`. Where F rises, F(v) >= t_i <=> v >= T_i, T_i found on all of float32. Where
it falls, F(v) >= t_i <=> not v >= T_i, and the T_i descend: sorted, they count 2^k - 1 - n, which is n with all bits
inverted. Where F rises in all channels it commutes with max pools, which then act on S.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Graph, Op, Replacement, Tensor
from larq_clip.converter.passes.base import apply_everywhere
from larq_clip.converter.passes.fuse_thresholds import Chain, Follower, find_chain


def fuse_levels(graph: Graph) -> Graph:
    """S → chain → Bitpack of k planes  ⇒  S → [MaxPool2D …] → Bitpack of k planes with other thresholds

    for S of float32 or an accumulator, and a chain of BatchNorm, Affine and MaxPool2D. Where the function in front of a
    pool falls in some channel, S is what the last pool writes. It does not fire where the Bitpack follows S or pools of
    S directly, or has inverted channels. It ends because each rewrite takes a BatchNorm or Affine from in front of a
    Bitpack. Ops that others read stay for them.
    """
    return apply_everywhere(graph, _rewrite)


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.Bitpack) or len(op.outputs) == 1 or op.invert is not None or op.thresholds is None:
        return None
    chain = find_chain(graph, op)
    if any(isinstance(step, ir.Elementwise) for step in chain.ops):
        return None
    chain = _behind_falling_pools(graph, chain)
    if chain.root.dtype not in (DType.FLOAT32, DType.INT32) or all(isinstance(o, ir.MaxPool2D) for o in chain.ops):
        return None
    thresholds, falls = _thresholds(graph, chain, op.thresholds)
    added: list[Op] = []
    tensors: list[Tensor] = []
    source = chain.root
    for pool in chain.ops:
        if isinstance(pool, ir.MaxPool2D):
            name = graph.unused_name(f"{op.outputs[0]}:{pool.output}")
            tensors.append(dataclasses.replace(source, name=name, shape=graph.result(pool).shape))
            added.append(dataclasses.replace(pool, inputs=(source.name,), outputs=(name,)))
            source = tensors[-1]
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
