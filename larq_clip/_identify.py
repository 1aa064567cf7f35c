"""What layers of arbitrary code compute, found as `_binary` finds binary layers: by what they produce, on probes.

A Lambda layer, or an operation of TensorFlow in a functional model, is taken for one that moves channels, joins tensors
or adds them only if it does exactly that with every element of tensors in which no two elements are equal, and of
tensors of random numbers over the whole range of float32. What none of the functions here finds is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from larq_clip._keras import keras, tf
from larq_clip._scope import quantized_scope

BATCH = 2
LARGEST_BOUND, BOUND_FRACTION_BITS = 2**15, 8
Array = np.ndarray


def is_symbolic(leaf: Any) -> bool:
    """Whether an argument of a call is a tensor that a layer produces."""
    return hasattr(leaf, "_keras_history")


def map_structure(structure: Any, function: Callable[[Any], Any]) -> Any:
    """Nested lists, tuples and dicts with other leaves."""
    if isinstance(structure, dict):
        return {key: map_structure(value, function) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return type(structure)(map_structure(value, function) for value in structure)
    return function(structure)


def moved_channels(node: Any, inputs: list[Any]) -> list[list[int]] | None:
    """For each output of a call, which channels of its one input it consists of; None where it does something else."""
    shapes = probe_shapes(inputs)
    if shapes is None or len(inputs) != 1:
        return None
    (shape,) = shapes
    codes = np.arange(np.prod(shape)).reshape(shape)
    channels = None
    for x in (codes.astype(np.float32), random_numbers(shape)):
        found = computed(node, inputs, [x])
        if found is None or any(y.shape[:-1] != x.shape[:-1] or not y.size for y in found):
            return None
        if channels is None:
            first = [y[(0,) * (y.ndim - 1)] for y in found]
            if any(np.any((codes < 0) | (codes >= shape[-1])) for codes in first):
                return None
            channels = [row.astype(int).tolist() for row in first]
        if not all(np.array_equal(y, x[..., index]) for y, index in zip(found, channels)):
            return None
    return channels


def is_concatenation(node: Any, inputs: list[Any]) -> bool:
    """Whether a call joins its inputs along the channels."""
    shapes = probe_shapes(inputs)
    if shapes is None or len(inputs) < 2 or len({shape[:-1] for shape in shapes}) > 1:
        return False
    arrays = [random_numbers(shape, seed) for seed, shape in enumerate(shapes)]
    found = computed(node, inputs, arrays)
    return found is not None and len(found) == 1 and np.array_equal(found[0], np.concatenate(arrays, axis=-1))


def padded_sum(node: Any, inputs: list[Any]) -> int | None:
    """Where a call adds two inputs, the narrower one with zeros around its channels: how many in front; else None."""
    shapes = probe_shapes(inputs)
    if shapes is None or len(inputs) != 2 or shapes[0][:-1] != shapes[1][:-1]:
        return None
    wide, narrow = sorted((0, 1), key=lambda i: -shapes[i][-1])
    rng = np.random.default_rng(5)
    before = None
    # Integers, so that every sum is exact; first with zeros in the wider one, to see where the other goes.
    for scale in (0, 1, 2**10):
        arrays = [rng.integers(-999, 1000, shape).astype(np.float32) for shape in shapes]
        arrays[wide] *= scale
        if scale == 0:
            arrays[narrow] = np.arange(1, arrays[narrow].size + 1, dtype=np.float32).reshape(shapes[narrow])
        found = computed(node, inputs, arrays)
        if found is None or len(found) != 1 or found[0].shape != arrays[wide].shape:
            return None
        if before is None:
            places = np.flatnonzero(found[0][(0,) * (found[0].ndim - 1)])
            before = int(places[0]) if places.size else 0
        after = shapes[wide][-1] - shapes[narrow][-1] - before
        if after < 0:
            return None
        around = [(0, 0)] * (len(shapes[wide]) - 1) + [(before, after)]
        if not np.array_equal(found[0], arrays[wide] + np.pad(arrays[narrow], around)):
            return None
    return before


def clip_bounds(function: Callable[[Any], Any]) -> tuple[float, float] | None:
    """Where an activation is clip(x, low, high) with low <= 0 <= high, and both are m 2^-8: low and high; else None."""
    with np.errstate(over="ignore"):
        x = np.concatenate([np.linspace(-40, 40, 2561), random_numbers((4096,))]).astype(np.float32)
    found = _numpy(function, tf.constant(np.append(x, [-1e30, 1e30]).astype(np.float32)))
    if found is None or len(found) != 1 or found[0].shape != (x.size + 2,):
        return None
    y, (low, high) = found[0][:-2], found[0][-2:].astype(float)
    exact = all(abs(v) <= LARGEST_BOUND and float(v * 2**BOUND_FRACTION_BITS).is_integer() for v in (low, high))
    if not exact or not low <= 0 <= high or not np.array_equal(y, np.clip(x, low, high)):
        return None
    return float(low), float(high)


def probe_shapes(inputs: list[Any]) -> list[tuple[int, ...]] | None:
    """Of probes: those of the inputs, 2 where they are open; None where one has no channels to move."""
    shapes = [tensor.shape for tensor in inputs]
    if not shapes or any(s.rank is None or s.rank < 2 or s[-1] is None for s in shapes):
        return None
    return [(BATCH, *(2 if size is None else int(size) for size in shape[1:])) for shape in shapes]


def random_numbers(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Normally distributed, times powers of ten from 1e-30 to 1e30."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 31, shape)).astype(np.float32)


def computed(node: Any, inputs: list[Any], values: list[Array]) -> list[Array] | None:
    """What the layer of a call makes of other inputs; None where it fails, or gives anything but tensors."""
    replaced = {id(tensor): tf.constant(value) for tensor, value in zip(inputs, values)}
    arguments = map_structure(
        (node.call_args, node.call_kwargs), lambda leaf: replaced[id(leaf)] if is_symbolic(leaf) else leaf
    )
    return _numpy(node.layer, *arguments[0], **arguments[1])


def _numpy(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Array] | None:
    try:
        with quantized_scope():
            found = tf.nest.flatten(function(*args, **kwargs))
    except (ValueError, TypeError, tf.errors.InvalidArgumentError):  # of other shapes than it was written for
        return None
    return [np.asarray(y) for y in found] if all(tf.is_tensor(y) for y in found) else None


def is_code(layer: Any) -> bool:
    """Whether a layer computes what its class does not say: Lambda layers and operations of TensorFlow."""
    return type(layer) is keras.layers.Lambda or type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda")


__all__ = [
    "clip_bounds",
    "computed",
    "is_code",
    "is_concatenation",
    "is_symbolic",
    "map_structure",
    "moved_channels",
    "padded_sum",
    "probe_shapes",
    "random_numbers",
]
