"""Round exact integers before their largest is taken, not behind."""

from __future__ import annotations

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Graph, Op, Replacement
from larq_clip.converter.passes.base import apply_everywhere, store_first


def store_before_pools(graph: Graph) -> Graph:
    """MaxPool2D of an exact tensor → Elementwise without steps  ⇒  the Elementwise, then MaxPool2D of what it stores.

    Equal because rounding and saturation are monotone, channel by channel: the largest of the rounded is the largest,
    rounded. It does not fire on a pool of stored tensors, nor where something else than a store reads it: then the
    pool stays for that. It ends because each rewrite takes a store from behind a pool.
    """
    return apply_everywhere(graph, _rewrite)


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.Elementwise) or not op.only_stores or len(op.outputs) != 1:
        return None
    pool = graph.producer(op.input)
    if not isinstance(pool, ir.MaxPool2D) or graph.source(pool).dtype is not DType.INT64:
        return None
    return store_first(graph, pool, op, "unpooled") if graph.result(op).dtype is not DType.INT64 else None
