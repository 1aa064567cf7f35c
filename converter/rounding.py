"""How far apart two float32 evaluations of the same layers can be, whatever the order of their sums.

Two programs that compute the same ops from the same inputs, each rounding as it likes, stay within a bound E of each
other, element by element. It is found by going through the ops, with E = 0 at the inputs:

    E(out) = spread(op, v, E(in)) + (gamma(n) + gamma(m)) S,   gamma(n) = n u / (1 - n u), u = 2^-24.

- The second term is the rounding of the op itself, n times in one program and m in the other (Higham, Accuracy and
  Stability of Numerical Algorithms, section 3.1). S is the sum of magnitudes: sum |w x| + |b| of a layer with weights,
  |s| (|x| + |mean|) + |beta| of a batch norm, the op on |x| with the magnitudes of its constants otherwise. n counts
  roundings of an element: the products of a sum, the pixels of a pool, one per input, and 8 for what a
  program may do differently: fold a batch norm into weights and bias, multiply by a reciprocal, approximate a function.
  A program that sums in float64, as the reference does, goes without the products of a sum.
- The first term is what a difference of the inputs becomes: sum |w| E(in) for a layer with weights; for other ops the
  largest change of the result over v - E and v + E, which bounds it because they are monotone in each input. A softmax
  p changes most where its own input rises by max E and all others fall by it: by p (1 - p) (e^(2 max E) - 1) at most.
- A scaled sum of integers, which is exact up to its scale, Keras may sum product by product: then S is |s| times the
  largest sum, and n as many products as that has, where Keras sums in float32.
- Integers and bits are rounded by rule, not by chance: where E(in) is 0 it stays 0, else it is the change over v - E
  and v + E, so that a sign may differ only where |v| <= E.
- Where a kernel is binary with a scale, or inputs are levels such as 1/3, the graph sums integers, and Keras multiples
  of the scale in float32: it is off by gamma(n) S more, which the caller gives.

So whatever consists of integers has E = 0: it is compared exactly. A program may also take numbers below the smallest
normal one, 2^-126, for zero, as TensorFlow does: an input below it has its magnitude as E.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor, image_shape

Reals = NDArray[np.float64]
UNIT = 2.0**-24
SMALLEST_NORMAL = 2.0**-126
OTHER_ROUNDINGS = 8
MOST_CORNERS = 4  # inputs with a difference whose signs are tried in all combinations
# They hand numbers on as they are, or round integers that are given exactly.
EXACT: tuple[type[ir.Op], ...] = (ir.MaxPool2D, ir.Reshape, ir.Unpack, ir.Concatenate, ir.AccumulatorClip)
LINEAR_TERMS = ("bias", "offset")


class Enclosed(NamedTuple):
    """A tensor as the evaluators compute it, ``(batch, ...)``, and E of each element, in what the numbers stand for."""

    array: NDArray
    error: Reals


def reals(array: NDArray, tensor: Tensor) -> Reals:
    """The numbers that a tensor's elements stand for, exactly: q 2^-f of integers, +1 or -1 of bits."""
    if tensor.dtype in ir.INTEGERS:
        return np.ldexp(array.astype(np.float64), -tensor.scale_bits)
    return ir.values(array, tensor).astype(np.float64)


def stored(numbers: Reals, tensor: Tensor) -> NDArray:
    """The inverse of `reals`."""
    if tensor.dtype is DType.BIT:
        return (numbers < 0).astype(np.uint8)
    if tensor.dtype in ir.INTEGERS:
        return np.rint(np.ldexp(numbers, tensor.scale_bits)).astype(tensor.dtype.numpy)
    return numbers.astype(np.float32)


def sum_error(terms: int, magnitudes: float) -> float:
    """gamma(n) S: how far a float32 sum may be from an exact one."""
    return terms * UNIT / (1 - terms * UNIT) * magnitudes


class Rules(NamedTuple):
    """What is known of the two programs.

    Attributes:
        sums: of tensors that the graph computes exactly, how far the reference may be off.
        exact: names of ops, those of a layer all, whose sums the reference rounds once.
        settled: the tensor of a sum that the other program, too, rounds once: nothing but its constants may differ.
    """

    sums: Mapping[str, float] = MappingProxyType({})
    exact: frozenset[str] = frozenset()
    settled: str | None = None


ANY = Rules()


def enclose(graph: ir.Graph, name: str, known: Mapping[str, NDArray], rules: Rules = ANY) -> Enclosed:
    """A tensor, from known tensors, arrays ``(batch, ...)`` as the evaluators take them, and how far it may be off.

    Raises:
        KeyError: where it depends on an input of the graph that is not known.
    """
    found = {n: Enclosed(array, np.zeros(array.shape)) for n, array in known.items()}

    def visit(wanted: str) -> Enclosed:
        if wanted not in found:
            op = graph.producer(wanted)
            if op is None:
                raise KeyError(wanted)
            inputs = [visit(source) for source in op.inputs]
            results = _through(op, inputs, graph.sources(op), graph.results(op), rules)
            results = [
                x._replace(error=x.error + rules.sums.get(n, 0.0)) for n, x in zip(op.outputs, results, strict=True)
            ]
            found.update(zip(op.outputs, results, strict=True))
        return found[wanted]

    return visit(name)


def _through(
    op: ir.Op, inputs: Sequence[Enclosed], sources: list[Tensor], results: list[Tensor], rules: Rules
) -> list[Enclosed]:
    inputs = [_flushed(x) if source.dtype is DType.FLOAT32 else x for x, source in zip(inputs, sources, strict=True)]
    arrays = op.evaluate([x.array for x in inputs], sources, results)
    outputs = [Enclosed(array, np.zeros(array.shape)) for array in arrays]
    uncertain = any(np.any(x.error) for x in inputs)
    if uncertain:
        outputs = _spread(op, inputs, outputs, sources, results)
    if isinstance(op, EXACT):
        return outputs
    return [
        out._replace(error=out.error + _rounding(op, inputs, out, sources, result, rules))
        if result.dtype is DType.FLOAT32
        else out
        for out, result in zip(outputs, results, strict=True)
    ]


def _flushed(x: Enclosed) -> Enclosed:
    """Numbers below the smallest normal one may count as 0."""
    magnitude = np.abs(x.array.astype(np.float64))
    tiny = (magnitude > 0) & (magnitude < SMALLEST_NORMAL)
    return x._replace(error=np.where(tiny, np.maximum(x.error, magnitude), x.error)) if np.any(tiny) else x


def _spread(
    op: ir.Op, inputs: Sequence[Enclosed], outputs: list[Enclosed], sources: list[Tensor], results: list[Tensor]
) -> list[Enclosed]:
    """The outputs with what a difference of the inputs becomes."""
    errors = [x.error for x in inputs]
    if isinstance(op, ir.Softmax):
        (out,) = outputs
        with np.errstate(over="ignore"):
            growth = np.expm1(2 * errors[0].max(axis=-1, keepdims=True))
        p = reals(out.array, results[0])
        return [out._replace(error=np.minimum(p * (1 - p + 2 * UNIT) * growth, 1.0))]
    weights = getattr(op, "weights", None)
    if weights is not None and weights.dtype == np.float32:
        linear = _with_magnitudes(op, drop=LINEAR_TERMS)
        spread = linear.evaluate([_up(e) for e in errors], sources, results)
        return [out._replace(error=s * (1 + 1e-3)) for out, s in zip(outputs, spread, strict=True)]
    if isinstance(op, ir.BinaryConv2D) and op.epilogue is ir.Epilogue.ACCUMULATOR:
        axes = op.window.axes(sources[0].shape, results[0].shape)
        image = errors[0].reshape(-1, *image_shape(sources[0].shape))
        spread = arithmetic.convolve(image, np.ones_like(op.weights), axes, groups=op.groups)
        return [out._replace(error=spread.reshape(out.error.shape)) for out in outputs]
    if weights is not None:
        return [out._replace(error=np.full(out.error.shape, np.inf)) for out in outputs]
    widest = [np.zeros(out.error.shape) for out in outputs]
    for corner in _corners(inputs, sources):
        for place, moved in enumerate(op.evaluate(corner, sources, results)):
            change = np.abs(reals(moved, results[place]) - reals(outputs[place].array, results[place]))
            widest[place] = np.maximum(widest[place], change)
    return [out._replace(error=error) for out, error in zip(outputs, widest, strict=True)]


def _corners(inputs: Sequence[Enclosed], sources: Sequence[Tensor]) -> Iterator[list[NDArray]]:
    """The inputs moved by E up or down: in all combinations, or all together where those are many."""
    ends = [(_moved(x, source, -1), _moved(x, source, 1)) for x, source in zip(inputs, sources, strict=True)]
    uncertain = [place for place, x in enumerate(inputs) if np.any(x.error)]
    together = len(uncertain) > MOST_CORNERS
    for signs in itertools.product((0, 1), repeat=1 if together else len(uncertain)):
        choice = dict(zip(uncertain, signs * len(uncertain) if together else signs))
        yield [ends[place][choice[place]] if place in choice else x.array for place, x in enumerate(inputs)]


def _moved(x: Enclosed, tensor: Tensor, direction: int) -> NDArray:
    numbers = reals(x.array, tensor) + direction * x.error
    if tensor.dtype is DType.FLOAT32:
        nearest = numbers.astype(np.float32)
        return np.where(x.error > 0, np.nextafter(nearest, np.float32(direction * np.inf)), x.array)
    return stored(numbers, tensor)


def _rounding(
    op: ir.Op, inputs: Sequence[Enclosed], out: Enclosed, sources: list[Tensor], result: Tensor, rules: Rules
) -> Reals:
    """(gamma(n) + gamma(m)) S of an op that computes float32."""
    rounded = op.name not in rules.exact
    n = _roundings(op, result, rounded), _roundings(op, result, result.name != rules.settled)
    gamma = sum(sum_error(count, 1.0) for count in n)
    value = np.abs(reals(out.array, result)) + out.error
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(op, ir.Softmax):  # rounding the exponent z < 0 changes e^z by at most u |z| e^z <= u / e
            return gamma * value + 2 * UNIT
        magnitudes = [_up(np.abs(reals(x.array, source)) + x.error) for x, source in zip(inputs, sources, strict=True)]
        if isinstance(op, ir.BatchNorm):
            scale = np.abs(op.gamma) / np.sqrt(op.variance.astype(np.float64) + op.epsilon)
            total = scale * (magnitudes[0].astype(np.float64) + np.abs(op.mean)) + np.abs(op.beta)
        else:
            offset = getattr(op, "offset", None)
            total = value if offset is None else value + 2 * np.abs(offset)
            if rounded and isinstance(op, ir.Affine) and op.largest_sum and op.multiplier is not None:
                total = np.maximum(total, np.abs(op.multiplier) * np.float64(op.largest_sum))
            if all(source.dtype is DType.FLOAT32 for source in sources):
                (largest,) = _with_magnitudes(op).evaluate(magnitudes, sources, [result])
                total = np.maximum(total, np.abs(largest))
        return gamma * total + max(n) * SMALLEST_NORMAL


def _roundings(op: ir.Op, result: Tensor, summed: bool) -> int:
    """How many an element goes through; `summed` says that the products of a layer's sum are among them."""
    weights, window = getattr(op, "weights", None), getattr(op, "window", None)
    if weights is not None:
        terms = weights.size // max(1, result.channels) if summed else 0
    else:
        terms = (getattr(op, "largest_sum", 0) if summed else 0) if window is None else window.taps
    return terms + len(op.inputs) + OTHER_ROUNDINGS


def _with_magnitudes(op: Any, drop: tuple[str, ...] = ()) -> Any:
    """The op with the magnitudes of its float32 constants, without those to drop, and without activation."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        if isinstance(value, np.ndarray) and value.dtype == np.float32:
            changes[field.name] = None if field.name in drop else np.abs(value)
        elif field.name == "activation":
            changes[field.name] = field.default
    return dataclasses.replace(op, **changes)


def _up(numbers: Reals) -> NDArray[np.float32]:
    """float32, rounded up."""
    return np.nextafter(numbers.astype(np.float32), np.float32(np.inf))


__all__ = ["Enclosed", "Rules", "enclose", "reals", "stored", "sum_error"]
