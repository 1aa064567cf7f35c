"""Which layers of a Keras model are binary: decided by what their quantizers produce, not by what they claim.

A layer is binary if its input quantizer maps everything to -1 and +1, or to *levels* m / n, m = 0 ... n, with n = 1,
3 or 7 (Larq's heaviside, DoReFa of 1 to 3 bits), and its kernel quantizer to -1 and +1, or to -s and +s with an s >= 0
per filter: then it is *scaled*. `precision` says nothing: it is 1 for Larq's heaviside (0 and 1), too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from larq_clip._accumulator import INPUT_LEVELS
from larq_clip._keras import keras, lq, tf
from larq_clip._scope import quantized_scope
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

PROBED_CHANNELS = 8

# Both sides of every threshold of DoReFa, and beyond.
LEVEL_PROBES = np.concatenate([PROBES, np.linspace(-0.5, 1.5, 999, dtype=np.float32)])


class BinaryKind(NamedTuple):
    """What makes a layer binary.

    Attributes:
        levels: n of inputs m / n, m = 0 ... n; None of signs.
        scaled: whether the kernel is -s and +s, one s per filter, and not -1 and +1.
    """

    levels: int | None
    scaled: bool


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


def produces_signs(quantizer: Any, tensors: Iterable[np.ndarray], scaled: bool = False) -> bool:
    """Whether a quantizer maps every x of all tensors to -1 or +1; where scaled, to sign(x) s, one s > 0 per filter."""
    if quantizer is None:
        return False
    quantizer = _stateless_copy(quantizer)
    for x in tensors:
        found = np.asarray(quantizer(tf.constant(x)))
        magnitude = np.abs(found)
        if not scaled and not np.all(magnitude == 1):
            return False
        if scaled:
            first = magnitude.reshape(-1, found.shape[-1])[0]
            if not np.all(np.isfinite(first) & (first > 0)) or not np.all(found == np.where(x < 0, -first, first)):
                return False
    return True


def level_count(quantizer: Any, shape: tuple[int, ...] = (1,)) -> int | None:
    """n of a quantizer to m / n, m = 0 ... n, with n = 1, 3 or 7: SteHeaviside, DoReFa of 1 to 3 bits; None of others.

    Args:
        shape: of the inputs to try it on, without the batch.
    """
    if quantizer is None:
        return None
    x = np.sort(LEVEL_PROBES)
    tensors = np.ones((x.size, *shape), np.float32) * x.reshape(-1, *(1,) * len(shape))
    found = np.asarray(_stateless_copy(quantizer)(tf.constant(tensors)))
    if found.shape != tensors.shape:
        return None
    every = found.reshape(x.size, -1)
    one = every[:, 0]
    steps = np.unique(one)
    n = len(steps) - 1
    if n not in INPUT_LEVELS or not np.array_equal(steps, np.arange(n + 1, dtype=np.float32) / np.float32(n)):
        return None
    return n if np.all(every == one[:, None]) and np.all(np.diff(one) >= 0) else None


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
    """Whether the quantizers of a Larq layer, of any kind, make it binary, on probes and on the layer's own kernel.

    Raises:
        ValueError: where the layer is not built, so has no kernel.
    """
    return binary_kind(layer) is not None


def binary_kind(layer: Any) -> BinaryKind | None:
    """What makes a layer binary; None for one that is not.

    Raises:
        ValueError: where the layer is not built, so has no kernel.
    """
    kernels = _kernels(layer)
    if getattr(layer, "input_quantizer", None) is None or not kernels or any(q is None for q, _ in kernels):
        return None
    latent = [_latent(layer, name) for _, name in kernels]
    shape = _input_shape(layer, latent[0].shape)
    levels = None
    if not produces_signs(layer.input_quantizer, _probe_tensors(shape)):
        levels = level_count(
            layer.input_quantizer, _input_shape(layer, _kernel_shape(layer.input_quantizer, latent[0]))[1:]
        )
        if levels is None:
            return None

    def all_produce(scaled: bool) -> bool:
        return all(
            produces_signs(quantizer, chain(_probe_tensors(_kernel_shape(quantizer, kernel)), [kernel]), scaled)
            for (quantizer, _), kernel in zip(kernels, latent)
        )

    if all_produce(scaled=False):
        return BinaryKind(levels, False)
    return BinaryKind(levels, True) if all_produce(scaled=True) else None


def _kernel_shape(quantizer: Any, kernel: np.ndarray) -> tuple[int, ...]:
    """That of probes: the kernel's, with fewer channels where the quantizer has no variables that could mind."""
    if getattr(quantizer, "weights", None):
        return kernel.shape
    return (*kernel.shape[:-2], *(min(size, PROBED_CHANNELS) for size in kernel.shape[-2:]))


def _latent(layer: Any, name: str) -> np.ndarray:
    kernel = getattr(layer, name, None)
    if kernel is None:
        raise ValueError(f"layer '{layer.name}' is not built; build the model, or call it on a batch, first")
    with quantized_scope(False):
        return kernel.numpy()
