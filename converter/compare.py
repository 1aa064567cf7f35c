"""Whether two graphs of files are the same program, and where their constants differ.

Integers, bits and settings must be equal, float32 constants up to the rounding of the functions of
float64 that they come from.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from larq_clip.converter import ir

# Constants are computed in float64 and rounded once; of two machines, the functions of float64 may differ a little.
FLOAT_TOLERANCE = 2.0**-22
NOT_IN_A_FILE = ("largest_sum",)  # fields of imported graphs


@dataclass(frozen=True)
class ConstantMismatch:
    """A constant of a file that is not the one that the model gives.

    Attributes:
        layer: the layers of the op, joined by '+'.
        op: type of the op.
        constant: its name, such as "thresholds".
        place: index in it; of a constant by channel, the channel. Empty where it is a single setting.
        expected: what the model gives.
        found: what the file holds.
        differing: how many values differ.
        size: how many values there are.
    """

    layer: str
    op: str
    constant: str
    place: tuple[int, ...]
    expected: Any
    found: Any
    differing: int
    size: int

    def __str__(self) -> str:
        at = {0: "", 1: f", channel {', '.join(map(str, self.place))}"}.get(len(self.place), f", index {self.place}")
        return (
            f"layer {self.layer!r} ({self.op}), {self.constant}{at}: the model gives {_word(self.expected)}, the file "
            f"holds {_word(self.found)}; {self.differing:,} of {self.size:,} values differ"
        )


def _word(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, (float, np.floating)) else str(value)


def same_structure(a: ir.Graph, b: ir.Graph) -> bool:
    """Whether two graphs have the same ops between the same tensors, whatever their constants."""

    def structure(graph: ir.Graph) -> Any:
        return [(type(op), op.name, op.inputs, op.outputs) for op in graph.ops], dict(graph.tensors), graph.outputs

    return structure(a) == structure(b)


def first_difference(expected: ir.Graph, found: ir.Graph) -> ConstantMismatch | None:
    """The first constant that differs, of two graphs of the same structure; none where all are equal."""
    for own, other in zip(expected.ops, found.ops, strict=True):
        for constant, a, b in _pairs("", own, other):
            place = _where(a, b)
            if place is None:
                continue
            arrays = isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape
            return ConstantMismatch(
                layer=other.name,
                op=other.type,
                constant=constant,
                place=place,
                expected=a[place] if arrays else _none(a),
                found=b[place] if arrays else _none(b),
                differing=int(np.sum(_unequal(a, b))) if arrays else 1,
                size=b.size if arrays else 1,
            )
    return None


def _pairs(path: str, a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    """Names and values of all that two ops, or parts of them, hold."""
    if dataclasses.is_dataclass(a) and type(a) is type(b):
        names = [field.name for field in dataclasses.fields(a) if field.name not in NOT_IN_A_FILE]
        pairs = [_pairs(f"{path}.{n}" if path else n, getattr(a, n), getattr(b, n)) for n in names]
        return [pair for found in pairs for pair in found]
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return [pair for i, (x, y) in enumerate(zip(a, b)) for pair in _pairs(f"{path}[{i}]", x, y)]
    return [(path, a, b)]


def _where(a: Any, b: Any) -> tuple[int, ...] | None:
    """Index of the first difference; empty where there is no index; none where they are equal."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return None if a is b or (type(a) is type(b) and a == b) else ()
    if a.shape != b.shape:
        return ()
    places = np.argwhere(_unequal(a, b))
    return tuple(int(i) for i in places[0]) if len(places) else None


def _unequal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind != "f":
        return np.asarray(a != b)
    with np.errstate(invalid="ignore"):  # infinite thresholds
        return ~((a == b) | (np.abs(a - b) <= FLOAT_TOLERANCE * np.maximum(np.abs(a), np.abs(b))))


def _none(value: Any) -> Any:
    return f"an array of {value.shape}" if isinstance(value, np.ndarray) else value
