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
from larq_clip.errors import ConversionError


def fold_padding(graph: Graph) -> Graph:
    """Three rewrites:

        Pad2D → Quantize, or Elementwise        ⇒  the same, then Pad2D; an Elementwise without steps
        Pad2D → Conv2D or Int8Conv2D            ⇒  the convolution, its window moved by the padding
        Pad2D → Bitpack → BinaryConv2D          ⇒  Bitpack → BinaryConv2D(pad_value +1), its window moved

    The Bitpack has no thresholds. A convolution must not pad by itself, save that a binary one may pad with +1, and
    the padding must be smaller than its kernel. A Pad2D with other readers stays for them, and is then refused. It ends
    because each rewrite takes an op from behind a Pad2D.

    Raises:
        ConversionError: where a Pad2D is left; names the layer and what reads it.
    """
    graph = apply_everywhere(graph, _rewrite)
    for op in graph.ops:
        if isinstance(op, ir.Pad2D):
            readers = [reader.name for reader in graph.consumers(op.output)] or ["an output"]
            raise ConversionError(
                f"layer {op.name!r} (ZeroPadding2D): its zeros go to {readers}; accepted is a convolution without "
                "padding of its own, with a larger kernel, directly behind; use padding='same' where it fits"
            )
    return graph


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
    before = graph.producer(op.input)
    pad, sign = before, None
    if isinstance(op, ir.BinaryConv2D):
        if not isinstance(before, ir.Bitpack) or before.thresholds is not None or before.invert is not None:
            return None
        pad, sign = graph.producer(before.input), before
    if not isinstance(pad, ir.Pad2D):
        return None
    if _pads(graph, op) and not (isinstance(op, ir.BinaryConv2D) and op.pad_value == 1):
        return None
    window = dataclasses.replace(op.window, pad_top=op.window.pad_top + pad.top, pad_left=op.window.pad_left + pad.left)
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
    pad = graph.producer(op.input)
    if not isinstance(pad, ir.Pad2D):
        return None
    return store_first(graph, pad, op, "unpadded")
