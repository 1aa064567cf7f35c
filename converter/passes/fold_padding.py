"""Hand the zeros around an image on to the convolution behind it.

Rounding takes 0 to 0, so zeros may be put around an image before or after it is stored. A window that starts `top` rows
above the image sees, at a tap outside, what padding puts there. Zeros contribute nothing to a full-precision or int8
sum. In front of a binary layer they become signs, and the sign of 0 is +1: so there a tap outside multiplies +1, which
is the convolution's pad_value.
"""

from __future__ import annotations

import dataclasses

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Graph, Op, Replacement, Tensor
from larq_clip.converter.passes.base import apply_everywhere, store_first
from larq_clip.converter.spec import window_fits


def fold_padding(graph: Graph) -> Graph:
    """Three rewrites, where Pad is a Slice that puts zeros around the image and leaves nothing out:

        Pad → Quantize, or Elementwise        ⇒  the same, then Pad; an Elementwise without steps
        Pad → Conv2D or Int8Conv2D            ⇒  the convolution, its window moved by the padding
        Pad → Bitpack → BinaryConv2D          ⇒  Bitpack → BinaryConv2D(pad_value +1), its window moved

    The Bitpack has no thresholds. A convolution must not pad by itself, save that a binary one may pad with +1, and
    the padding must be smaller than its kernel. A Pad with other readers stays for them. It ends because each rewrite
    takes an op from behind a Pad.
    """
    return apply_everywhere(graph, _rewrite)


def _padding(graph: Graph, tensor: str) -> ir.Slice | None:
    """The op that writes a tensor, if all it does is to put zeros around an image."""
    op = graph.producer(tensor)
    return op if isinstance(op, ir.Slice) and op.only_pads(graph.source(op), graph.result(op)) else None


def _pads(graph: Graph, op: ir.BinaryConv2D | ir.Conv2D | ir.Int8Conv2D) -> bool:
    """Whether a window of a convolution reaches beyond the image."""
    return any(
        axis.pad_before > 0 or (axis.out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation >= axis.size
        for axis in op.window.axes(graph.source(op).shape, graph.result(op).shape)
    )


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if isinstance(op, ir.Quantize) or (isinstance(op, ir.Elementwise) and op.only_stores):
        return _behind_store(graph, op)
    if not isinstance(op, (ir.BinaryConv2D, ir.Conv2D, ir.Int8Conv2D)):
        return None
    sign: ir.Bitpack | None = None
    if isinstance(op, ir.BinaryConv2D):
        before = graph.producer(op.input)
        if not isinstance(before, ir.Bitpack) or not before.is_plain_sign:
            return None
        sign = before
    pad = _padding(graph, op.input if sign is None else sign.input)
    if pad is None:
        return None
    if _pads(graph, op) and not (isinstance(op, ir.BinaryConv2D) and op.pad_value == 1):
        return None
    window = dataclasses.replace(
        op.window, pad_top=op.window.pad_top - pad.begin_h, pad_left=op.window.pad_left - pad.begin_w
    )
    moved = dataclasses.replace(op, name=ir.join_names(pad, op), window=window)
    source = graph.source(pad)
    if not window_fits(moved, source, graph.result(op)):
        return None
    if sign is None:
        return Replacement((op,), (ir.redirect(moved, op.input, source.name),))
    bits = Tensor(graph.unused_name(f"{op.input}:unpadded"), DType.BIT, source.shape)
    unpadded = dataclasses.replace(sign, inputs=(source.name,), outputs=(bits.name,))
    moved = dataclasses.replace(ir.redirect(moved, op.input, bits.name), pad_value=1)
    return Replacement((op,), (unpadded, moved), (bits,))


def _behind_store(graph: Graph, op: Op) -> Replacement | None:
    pad = _padding(graph, op.input)
    return None if pad is None else store_first(graph, pad, op, "unpadded")
