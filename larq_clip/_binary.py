"""Which layers of a Keras model are binary: decided by what their quantizers produce, not by what they claim.

A layer is binary if both its quantizers map everything to -1 and +1. `precision` says nothing: it is 1 for Larq's
heaviside (0 and 1) and magnitude-aware sign (two values per channel, neither of them 1), too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from larq_clip._keras import keras, lq, tf
from larq_clip.layers import QuantConv2D, QuantDense

# What `models.clip_model` can replace. Exact types: a subclass may compute anything.
REPLACED_BY = {
    lq.layers.QuantConv2D: QuantConv2D,
    lq.layers.QuantDense: QuantDense,
    QuantConv2D: QuantConv2D,
    QuantDense: QuantDense,
}

# Around zero, around the thresholds of ternary quantizers, inside and outside of every clip.
PROBES = np.array(
    [sign * x for x in (0.0, 1e-30, 1e-6, 0.01, 0.04, 0.3, 0.5, 1.0, 1.7, 40.0, 1e6, 1e30) for sign in (1, -1)],
    np.float32,
)


def _probe_tensors(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Tensors of one shape that together hold every probe, and normally distributed ones."""
    size = int(np.prod(shape))
    count = -(-PROBES.size // size)
    yield from np.resize(PROBES, (count, *shape))
    yield np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _stateless_copy(quantizer: Any) -> Any:
    """A copy where that computes the same, since calling a quantizer updates its metrics."""
    if isinstance(quantizer, keras.layers.Layer) and not quantizer.weights:
        return type(quantizer).from_config(quantizer.get_config())
    return quantizer


def produces_signs(quantizer: Any, tensors: Iterable[np.ndarray]) -> bool:
    """Whether a quantizer maps every element of all tensors to -1 or +1."""
    if quantizer is None:
        return False
    quantizer = _stateless_copy(quantizer)
    return all(bool(np.all(np.abs(np.asarray(quantizer(tf.constant(x)))) == 1)) for x in tensors)


def _kernels(layer: keras.layers.Layer) -> list[tuple[Any, Any]]:
    """Pairs of kernel quantizer and name of the kernel, for all kinds of Larq layers."""
    names = ("kernel", "depthwise", "pointwise")
    pairs = [(f"{n}_quantizer", n if n == "kernel" else f"{n}_kernel") for n in names]
    return [(getattr(layer, q), k) for q, k in pairs if hasattr(layer, q)]


def _input_shape(layer: keras.layers.Layer, kernel_shape: tuple[int, ...]) -> tuple[int, ...]:
    channels = kernel_shape[-2] * getattr(layer, "groups", 1)
    spatial = kernel_shape[:-2]
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return (2, channels, *spatial)
    return (2, *spatial, channels)


def is_binary(layer: Any) -> bool:
    """Whether both quantizers of a Larq layer, of any kind, map everything to -1 and +1, the layer's own kernel too.

    Raises:
        ValueError: where the layer is not built, so has no kernel.
    """
    kernels = _kernels(layer)
    if getattr(layer, "input_quantizer", None) is None or not kernels or any(q is None for q, _ in kernels):
        return False
    latent = [_latent(layer, name) for _, name in kernels]
    return all(
        produces_signs(quantizer, chain([kernel], _probe_tensors(kernel.shape)))
        for (quantizer, _), kernel in zip(kernels, latent)
    ) and produces_signs(layer.input_quantizer, _probe_tensors(_input_shape(layer, latent[0].shape)))


def _latent(layer: Any, name: str) -> np.ndarray:
    kernel = getattr(layer, name, None)
    if kernel is None:
        raise ValueError(f"layer '{layer.name}' is not built; build the model, or call it on a batch, first")
    with lq.context.quantized_scope(False):
        return kernel.numpy()
