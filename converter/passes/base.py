"""What a pass is.

A pass is a function from a graph to a graph that computes the same outputs. It does one thing, named by a verb
phrase, and its docstring gives its contract: which pattern it removes, why the result is equal, where it does not
fire, and why it ends. Graphs and ops are immutable: a pass builds new ones. It keeps the tensor names of
`larq_clip.converter.ir.Tensor`: a fusion's output has the name of the last output that it swallowed.

Most passes are one local rewrite applied until it no longer fires, which is what `apply_everywhere` does. Such a pass
ends because each rewrite reduces something that cannot grow: usually the number of ops of one kind.
"""

from __future__ import annotations

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
