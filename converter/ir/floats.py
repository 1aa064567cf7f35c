"""The float32 formulas of the file's ops, rounded step by step in the order that the runtime keeps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from larq_clip.arithmetic import WindowAxis, window_reduce, window_taps

Floats = NDArray[np.float32]
Axes = tuple[WindowAxis, WindowAxis]


def conv2d(x: Floats, weights: Floats, axes: Axes, bias: Floats | None, groups: int = 1) -> Floats:
    """Convolution with zero padding: ``(batch, height, width, in)`` to ``(batch, out_h, out_w, out)``.

    Sums run over kernel_h, kernel_w, in_channels of the group in this order, from 0, with one rounding per product and
    one per addition; the bias comes last. Weights: ``(kernel_h, kernel_w, in / groups, out)``.
    """
    rows, columns = axes
    depth = weights.shape[2]
    first = np.arange(weights.shape[3]) // (weights.shape[3] // groups) * depth  # input channel of each output channel
    total = np.zeros((x.shape[0], rows.out, columns.out, weights.shape[3]), np.float32)
    for i, j, place, source in window_taps(x, axes):
        part = total[place]
        for channel in range(depth):
            part = part + source[..., first + channel] * weights[i, j, channel]
        total[place] = part
    return total if bias is None else total + bias


def average_pool2d(x: Floats, axes: Axes, pixels: NDArray[np.integer]) -> Floats:
    """Sum over the window's pixels inside the image, in row-major order, divided by their number ``(out_h, out_w)``."""
    total = window_reduce(x, axes, np.add, np.zeros((), np.float32))
    return total / pixels.astype(np.float32)[None, :, :, None]


def affine(x: Floats, multiplier: Floats | None, offset: Floats | None) -> Floats:
    """round(round(multiplier * x) + offset), per channel."""
    product = x if multiplier is None else multiplier * x
    return product if offset is None else product + offset


def softmax(x: Floats) -> Floats:
    """exp(x - max x) / sum of the same, over the last axis."""
    powers = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return powers / np.sum(powers, axis=-1, keepdims=True)


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + e^-x), computed in float64 and rounded once."""
    power = np.exp(-np.abs(x.astype(np.float64)))
    return (np.where(x < 0, power, 1.0) / (1.0 + power)).astype(np.float32)


def tanh(x: Floats) -> Floats:
    """Hyperbolic tangent, computed in float64 and rounded once."""
    return np.tanh(x.astype(np.float64)).astype(np.float32)
