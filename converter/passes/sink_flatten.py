"""Move flattening below the sign and into the kernels of binary dense layers.

A flattened image has the same elements in the same order, so an elementwise op commutes with flattening; and a dense
layer over H·W·C flattened elements is a convolution whose H×W kernel covers the image once:

    sum over n of sign(x[n]) w[o, n]  =  sum over (i, j, c) of sign(x[i, j, c]) w[o, (i·W + j)·C + c].
"""

from __future__ import annotations

import dataclasses

import numpy as np

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Graph, Op, Replacement, Tensor, Window, image_shape
from larq_clip.converter.passes.base import apply_everywhere


def sink_flatten(graph: Graph) -> Graph:
    """Three rewrites, for Flatten = a Reshape of an image to one axis, or to one pixel of as many channels:

        Flatten → Bitpack                     ⇒  Bitpack → Flatten of bits, one for each output
        Flatten of bits → Unpack              ⇒  Unpack → Flatten of float32
        Flatten of bits → BinaryConv2D (1×1)  ⇒  BinaryConv2D with a kernel as large as the image

    The bits keep their name, X:input, with the image's shape. A Flatten that other ops read too stays for them. It
    does not fire on another Reshape, nor on a Bitpack whose thresholds differ from pixel to pixel, nor on a grouped
    convolution; nor on the sign of one pixel that others than 1×1 convolutions read, since bits cannot be
    reshaped for those. It ends because every rewrite moves a Flatten one op closer to the end or removes it.
    """
    return apply_everywhere(graph, _rewrite)


def is_flatten(graph: Graph, op: Op | None) -> bool:
    """Whether an op is a Reshape of an image to one axis, or to one pixel."""
    if not isinstance(op, ir.Reshape) or len(graph.source(op).shape) == 1:
        return False
    return image_shape(graph.result(op).shape)[:2] == (1, 1) != image_shape(graph.source(op).shape)[:2]


def _takes_flattened(op: Op) -> bool:
    """Whether an op becomes a convolution of the image that was flattened."""
    return isinstance(op, ir.BinaryConv2D) and op.groups == 1 and op.window.taps == 1


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    flatten = graph.producer(op.input)
    if flatten is None or not is_flatten(graph, flatten):
        return None
    image = graph.source(flatten)
    if isinstance(op, ir.Bitpack) and op.invert is None:
        readers = [reader for output in op.outputs for reader in graph.consumers(output)]
        one_pixel = len(graph.result(op).shape) > 1
        if one_pixel and not (readers and all(map(_takes_flattened, readers))):
            return None
        if op.thresholds is None:
            return _swap(graph, flatten, op, op, DType.BIT)
        channels = image.channels
        own = op.thresholds.reshape(*op.thresholds.shape[:-1], -1, channels)
        if np.any(own != own[..., :1, :]):
            return None
        return _swap(graph, flatten, op, dataclasses.replace(op, thresholds=own[..., 0, :]), DType.BIT)
    if isinstance(op, ir.Unpack):
        return _swap(graph, flatten, op, op, DType.FLOAT32)
    if isinstance(op, ir.BinaryConv2D) and _takes_flattened(op):
        height, width, channels = image_shape(image.shape)
        conv = dataclasses.replace(
            op,
            inputs=(image.name, *op.inputs[1:]),
            window=Window(height, width),
            weights=op.weights.reshape(op.out_channels, height, width, channels),
        )
        return Replacement((op,), (conv,))
    return None


def _swap(graph: Graph, flatten: Op, op: Op, moved: Op, dtype: DType) -> Replacement:
    """flatten → op ⇒ moved → flatten; the tensors between have op's output names, the last ones `:flat` appended."""
    source = graph.source(flatten)
    readers = list(dict.fromkeys(reader for output in op.outputs for reader in graph.consumers(output)))
    redirected, first, last = readers, [], []
    for result in graph.results(op):
        keep_last = result.name in graph.outputs
        image, flat = (graph.unused_name(f"{result.name}:{place}") for place in ("image", "flat"))
        first.append(Tensor(image if keep_last else result.name, dtype, source.shape))
        last.append(Tensor(result.name if keep_last else flat, dtype, result.shape))
        redirected = [ir.redirect(reader, result.name, last[-1].name) for reader in redirected]
    moved = dataclasses.replace(moved, inputs=(source.name,), outputs=tuple(tensor.name for tensor in first))
    flattened = [ir.Reshape(flatten.name, (a.name,), (b.name,)) for a, b in zip(first, last, strict=True)]
    return Replacement((op, *readers), (moved, *flattened, *redirected), (*first, *last))
