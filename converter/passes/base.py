"""What a pass is.

A pass is a function from a graph to a graph that computes the same outputs. It does one thing, named by a verb
phrase, and its docstring gives its contract: which pattern it removes, why the result is equal, where it does not
fire, and why it ends. Graphs and ops are immutable: a pass builds new ones. It keeps the tensor names of
`larq_clip.converter.ir.Tensor`: a fusion's output has the name of the last output that it swallowed.

Most passes are one local rewrite applied until it no longer fires, which is what `apply_everywhere` does. Such a pass
ends because each rewrite reduces something that cannot grow: usually the number of ops of one kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from larq_clip.converter import ir

Pass = Callable[[ir.Graph], ir.Graph]
Rewrite = Callable[[ir.Graph, ir.Op], "ir.Replacement | None"]


def apply_everywhere(graph: ir.Graph, rewrite: Rewrite) -> ir.Graph:
    """Apply a rewrite to the first op where it fires, again and again until it fires nowhere."""
    while True:
        for op in graph.ops:
            change = rewrite(graph, op)
            if change is not None:
                graph = graph.replace(change)
                break
        else:
            return graph


def store_first(graph: ir.Graph, move: ir.Op, store: ir.Op, suffix: str) -> ir.Replacement:
    """move → store  ⇒  store → move, where the one moves elements and the other rounds them one by one.

    The tensor in between is named as the result, ``:suffix`` appended. Other readers of `move` keep it.
    """
    result, source = graph.result(store), graph.source(move)
    inner = dataclasses.replace(result, name=graph.unused_name(f"{result.name}:{suffix}"), shape=source.shape)
    first = dataclasses.replace(store, inputs=(source.name,), outputs=(inner.name,))
    moved = dataclasses.replace(move, inputs=(inner.name,), outputs=(result.name,))
    return ir.Replacement((store,), (first, moved), (inner,))
