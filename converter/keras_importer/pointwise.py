"""What a function of single numbers computes, found by what it produces: activations, Lambda layers, constants.

Functions are compared bit for bit with each formula of the IR, on a grid, on extremes and on random numbers over the
whole range of float32. What equals none of them is not taken for one that is near.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larq_clip._identify import random_numbers
from larq_clip._keras import keras, tf
from larq_clip.converter import ir
from larq_clip.converter.ir import Activation

Floats = NDArray[np.float32]
Operation = tuple[type[ir.Op], dict[str, Any]]  # an op that reads one tensor, and its fields

BIG = np.float32(2.0**60)
SMALLEST_PROBES, SMALLEST_BATCH = 6000, 2
NUMBERS = np.concatenate(
    [np.linspace(-40, 40, 2561), np.linspace(-3, 3, 1201), [0.0, 1e-30, -1e-30, 1e30, -1e30, 1e6, -1e6]]
).astype(np.float32)


def identify(function: Callable[[Any], Any], shape: tuple[int, ...]) -> list[Operation] | None:
    """The ops that compute what a function makes of ``(batch, *shape)``; none of them where it gives what it gets.

    Constants that it multiplies with or adds may differ by channel. None where it computes something else.
    """
    batch = max(SMALLEST_BATCH, -(-SMALLEST_PROBES // int(np.prod(shape))))
    inputs = [np.resize(NUMBERS, (batch, *shape)), random_numbers((batch, *shape))]
    results: list[Floats] = []
    for x in inputs:
        y = _evaluated(function, x)
        if y is None or y.shape != x.shape:
            return None
        results.append(y)

    def computes(formula: Callable[[Floats], Any]) -> bool:
        with np.errstate(over="ignore", invalid="ignore"):
            return all(np.array_equal(np.asarray(formula(x)), y, equal_nan=True) for x, y in zip(inputs, results))

    if computes(lambda x: x):
        return []
    for known, operation in _named(shape[-1]):
        if computes(lambda x, known=known: known(tf.constant(x))):  # type: ignore[misc]
            return [operation]
    ends = _ends(function, shape)
    if ends is not None and computes(ends):
        return [(ir.Affine, {"activation": ends})]
    slope = np.float32(_at(function, -0.5, shape).flat[0] / np.float32(-0.5))
    if np.isfinite(slope) and computes(lambda x: np.where(x < 0, slope * x, x)):
        return [(ir.PReLU, {"slope": np.full((1, 1, 1), slope, np.float32)})]
    return _affine(function, shape, computes)


def _ends(function: Callable[[Any], Any], shape: tuple[int, ...]) -> Activation | None:
    """Between which ends a function clips, if it does."""
    low, high = (float(_at(function, value, shape).flat[0]) for value in (-BIG, BIG))
    try:
        return Activation(-np.inf if low == -BIG else low, np.inf if high == BIG else high)
    except ValueError:
        return None


def _named(channels: int) -> list[tuple[Callable[[Any], Any], Operation]]:
    """Functions of Keras that are more than a multiplication, an addition or a clip."""
    fifth, half = (np.full(channels, value, np.float32) for value in (0.2, 0.5))
    known = keras.activations
    return [
        (known.sigmoid, (ir.Function, {"kind": ir.FunctionKind.SIGMOID})),
        (known.tanh, (ir.Function, {"kind": ir.FunctionKind.TANH})),
        (known.softmax, (ir.Softmax, {})),
        (
            known.hard_sigmoid,
            (ir.Affine, {"multiplier": fifth, "offset": half, "activation": Activation(0, 1)}),
        ),
    ]


def _affine(
    function: Callable[[Any], Any], shape: tuple[int, ...], computes: Callable[[Callable[[Floats], Any]], bool]
) -> list[Operation] | None:
    """round(round(multiplier x) + offset): offset at 0; and so large a number that no offset changes the product."""
    offset = _at(function, 0.0, shape).reshape(-1, shape[-1])[0]
    with np.errstate(over="ignore", invalid="ignore"):
        multiplier = _at(function, BIG, shape).reshape(-1, shape[-1])[0] / BIG
        fields = {"multiplier": multiplier, "offset": offset}
        if not all(np.all(np.isfinite(constant)) for constant in fields.values()):
            return None
    if not computes(lambda x: multiplier * x + offset):
        return None
    trivial = {"multiplier": 1.0, "offset": 0.0}
    return [(ir.Affine, {name: value for name, value in fields.items() if np.any(value != trivial[name])})]


def _evaluated(function: Callable[[Any], Any], x: Floats) -> Floats | None:
    y = function(tf.constant(x))
    if not tf.is_tensor(y) and not isinstance(y, np.ndarray):
        return None
    array: NDArray[Any] = np.asarray(y)
    return array if array.dtype == np.float32 else None


def _at(function: Callable[[Any], Any], value: float | np.floating, shape: tuple[int, ...]) -> Floats:
    """What it makes of one number, of one image."""
    result = _evaluated(function, np.full((SMALLEST_BATCH, *shape), value, np.float32))
    assert result is not None, "it was evaluated before"
    return result[0]


__all__ = ["Operation", "identify"]
