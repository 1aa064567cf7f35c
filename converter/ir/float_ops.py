"""float32 ops between the layers of plain models: sums and products of tensors, PReLU, sigmoid, tanh, softmax."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from larq_clip.converter.ir import floats
from larq_clip.converter.ir.ops import Floats, Op, UnaryOp, as_images, like
from larq_clip.converter.ir.tensors import Tensor, values


class ArithmeticKind(enum.IntEnum):
    """What is done to two numbers; the values are those of the file."""

    ADD = 0
    SUBTRACT = 1
    MULTIPLY = 2
    MAXIMUM = 3
    MINIMUM = 4


_ARITHMETIC: dict[ArithmeticKind, Callable[..., Floats]] = {
    ArithmeticKind.ADD: np.add,
    ArithmeticKind.SUBTRACT: np.subtract,
    ArithmeticKind.MULTIPLY: np.multiply,
    ArithmeticKind.MAXIMUM: np.maximum,
    ArithmeticKind.MINIMUM: np.minimum,
}


@dataclass(frozen=True, eq=False)
class Arithmetic(Op):
    """The first input `kind` the second, float32, rounded once; an axis of 1 is repeated along the other input's."""

    kind: ArithmeticKind

    def evaluate(
        self, arrays: Sequence[NDArray], sources: Sequence[Tensor], results: Sequence[Tensor]
    ) -> list[NDArray]:
        a, b = (as_images(x, source) for x, source in zip(arrays, sources, strict=True))
        return [like(_ARITHMETIC[self.kind](a, b), results[0])]


@dataclass(frozen=True, eq=False)
class PReLU(UnaryOp):
    """x where x >= 0, else slope x, rounded once.

    Attributes:
        slope: ``(height or 1, width or 1, channels or 1)``; an axis of 1 is repeated.
    """

    slope: Floats = field(repr=False)

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        image = as_images(x, source)
        return like(np.where(image < 0, self.slope * image, image), result)


class FunctionKind(enum.IntEnum):
    """Which function; the values are those of the file."""

    SIGMOID = 0
    TANH = 1


@dataclass(frozen=True, eq=False)
class Function(UnaryOp):
    """Sigmoid 1 / (1 + e^-x), or hyperbolic tangent, of each element, to within one unit of the last place."""

    kind: FunctionKind

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        return floats.sigmoid(x) if self.kind is FunctionKind.SIGMOID else floats.tanh(x)


@dataclass(frozen=True, eq=False)
class Softmax(UnaryOp):
    """Softmax over the last axis."""

    def compute(self, x: NDArray, source: Tensor, result: Tensor) -> NDArray:
        return floats.softmax(values(x, source))
