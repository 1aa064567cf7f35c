"""Let all layers that read the sign of one tensor share its bits."""

from __future__ import annotations

from larq_clip.converter import ir
from larq_clip.converter.ir import Graph, Op, Replacement
from larq_clip.converter.passes.base import apply_everywhere


def share_signs(graph: Graph) -> Graph:
    """x → Bitpack → a, x → Bitpack → b  ⇒  x → Bitpack → a, where readers of b read a.

    Equal because a sign without thresholds has no parameters. The first one's name stays. It does not fire on a
    Bitpack with thresholds, nor where b is an output of the model. It ends because each rewrite removes an op.
    """
    return apply_everywhere(graph, _rewrite)


def _is_plain_sign(op: Op) -> bool:
    return isinstance(op, ir.Bitpack) and op.is_plain_sign


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if not _is_plain_sign(op) or op.output in graph.outputs:
        return None
    first = next(other for other in graph.consumers(op.input) if _is_plain_sign(other))
    if first is op:
        return None
    readers = graph.consumers(op.output)
    redirected = tuple(ir.redirect(reader, op.output, first.output) for reader in readers)
    return Replacement((op, *readers), redirected)
