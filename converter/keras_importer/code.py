"""Lambda layers and operations of TensorFlow, taken for what they compute on probes (`larq_clip._identify`).

What is found is exact: the layer gave bit for bit what the op gives, for all elements of tensors in which no two are
equal and of random ones. What none of the ops here computes is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from larq_clip._identify import (
    computed,
    is_concatenation,
    moved_channels,
    padded_sum,
    probe_shapes,
    random_numbers,
)
from larq_clip.converter import ir
from larq_clip.converter.ir import ArithmeticKind, DType, Tensor, Window
from larq_clip.converter.keras_importer import merges, shapes
from larq_clip.converter.keras_importer.activations import apply
from larq_clip.converter.keras_importer.context import LayerImport, Source
from larq_clip.converter.keras_importer.pointwise import identify
from larq_clip.converter.keras_importer.quantizers import signs

Array = np.ndarray
REMEDY = (
    "accepted is code that picks, splits or joins channels, crops or pads images, flattens or reshapes, applies an "
    "activation, multiplies by or adds constants (for x / c write x * (1 / c)), adds, subtracts, multiplies or "
    "compares two tensors, or takes the mean or the largest of all pixels; write the rest with layers of Keras"
)
KINDS = {
    ArithmeticKind.ADD: np.add,
    ArithmeticKind.SUBTRACT: np.subtract,
    ArithmeticKind.MULTIPLY: np.multiply,
    ArithmeticKind.MAXIMUM: np.maximum,
    ArithmeticKind.MINIMUM: np.minimum,
}


def operation(call: LayerImport, node: Any, sources: Sequence[Source]) -> list[Source]:
    """What the outputs of the layer's call are.

    Raises:
        ConversionError: where it computes something else than the ops of a file.
    """
    keras_inputs = list(node.keras_inputs)
    if len({id(t) for t in keras_inputs}) < len(keras_inputs):
        raise call.error("it reads one tensor several times", "name it once, or use a layer such as Add")
    tensors = [source for source in sources if isinstance(source, Tensor)]
    assert len(tensors) == len(sources), "layers that compute in float32 read tensors"
    found = _of_one(call, node, keras_inputs, tensors[0]) if len(tensors) == 1 else None
    if len(tensors) > 1:
        found = _of_several(call, node, keras_inputs, tensors)
    if found is None:
        raise call.error("its code computes none of what the converter knows", REMEDY)
    return list(found)


def _of_one(call: LayerImport, node: Any, inputs: list[Any], source: Tensor) -> list[Tensor] | None:
    moved = moved_channels(node, inputs)
    if moved is not None and moved != [list(range(source.channels))]:
        names = [call.name] if len(moved) == 1 else [f"{call.name}:{part}" for part in range(len(moved))]
        return [merges.take_channels(call, source, channels, name) for channels, name in zip(moved, names)]
    shapes_found = probe_shapes(inputs)
    if shapes_found is None:
        return None
    # No two of them are equal, and none is 0, which is what lies around an image.
    x = np.arange(1, np.prod(shapes_found[0]) + 1, dtype=np.float32).reshape(shapes_found[0])
    outputs = computed(node, inputs, [x])
    if outputs is None or len(outputs) != 1 or outputs[0].dtype != np.float32 or not outputs[0].size:
        return None
    y = outputs[0]
    if y.shape == x.shape:
        return _of_elements(call, node, inputs, source)
    if y.shape[0] != x.shape[0]:
        return None
    if y.size == x.size and np.array_equal(y.ravel(), x.ravel()):
        return [shapes.reshaped(call, source, y.shape[1:])]
    return _of_region(call, node, inputs, source, x, y) or _of_pixels(call, node, inputs, source, y.shape[1:])


def _of_elements(call: LayerImport, node: Any, inputs: list[Any], source: Tensor) -> list[Tensor] | None:
    def function(x: Any) -> Any:
        found = computed(node, inputs, [x])
        return None if found is None or len(found) != 1 else found[0]

    probes = random_numbers((2, *source.shape))
    y = function(probes)
    if y is not None and np.array_equal(y, np.where(probes < 0, np.float32(-1), np.float32(1))):
        return [signs(call, function, source, call.name, "output")]
    found = identify(function, source.shape)
    return None if found is None else [apply(call, found, source, call.name)]


def _of_region(
    call: LayerImport, node: Any, inputs: list[Any], source: Tensor, x: Array, y: Array
) -> list[Tensor] | None:
    """A region of the image with zeros where it reaches beyond; x are the numbers from 1 on."""
    if len(y.shape) != len(x.shape):
        return None
    places = np.flatnonzero(y[0])
    if not places.size:
        return None
    value = y[0].flat[places[0]]
    if value != np.rint(value) or not 1 <= value <= x[0].size:
        return None
    shape = (1,) * (4 - len(x.shape)) + x.shape[1:]
    at = np.unravel_index(places[0], (1,) * (4 - len(y.shape)) + y.shape[1:])
    begin = [int(of) - int(to) for of, to in zip(np.unravel_index(int(value) - 1, shape), at)]
    result = Tensor(call.name, DType.FLOAT32, y.shape[1:])
    slices = ir.Slice(call.name, (source.name,), (result.name,), *begin)
    for probe in (x, random_numbers(x.shape)):
        outputs = computed(node, inputs, [probe])
        expected = slices.compute(probe, Tensor("", DType.FLOAT32, source.shape), result)
        if outputs is None or not np.array_equal(outputs[0], expected):
            return None
    return [shapes.region(call, source, y.shape[1:], *begin)]


def _of_pixels(
    call: LayerImport, node: Any, inputs: list[Any], source: Tensor, shape: tuple[int, ...]
) -> list[Tensor] | None:
    """The mean or the largest of all pixels."""
    if len(source.shape) != 3 or shape not in ((source.channels,), (1, 1, source.channels)):
        return None
    rng = np.random.default_rng(3)  # integers, so that the sums are exact
    x = rng.integers(-999, 1000, (2, *source.shape)).astype(np.float32)
    outputs = computed(node, inputs, [x])
    assert outputs is not None, "it was computed before"
    y, window = outputs[0].reshape(2, -1), Window(*source.shape[:2])
    if np.array_equal(y, x.max((1, 2))):
        return [shapes.maximum(call, source, window, shape)]
    if np.allclose(y, x.mean((1, 2), dtype=np.float64), rtol=1e-6, atol=1e-6):
        mean = shapes.mean(call, source, window, shape)
        assert isinstance(mean, Tensor)
        return [mean]
    return None


def _of_several(call: LayerImport, node: Any, inputs: list[Any], sources: list[Tensor]) -> list[Tensor] | None:
    if is_concatenation(node, inputs):
        return [merges.concatenated(call, sources)]
    shapes_found = probe_shapes(inputs)
    if shapes_found is None:
        return None
    probes = [[random_numbers(shape, seed + k) for k, shape in enumerate(shapes_found)] for seed in (0, 50)]
    outputs = [computed(node, inputs, values) for values in probes]
    if any(found is None or len(found) != 1 for found in outputs):
        return None
    results = [found[0] for found in outputs if found is not None]
    same_rank = len({len(shape) for shape in shapes_found}) == 1
    for kind, function in KINDS.items():
        for turned in (False, True):
            if same_rank and _is_fold(function, probes, results, turned=turned):
                return [merges.arithmetic(call, kind, sources[::-1] if turned else sources)]
    before = padded_sum(node, inputs)
    return None if before is None else [merges.padded_sum(call, sources, before)]


def _is_fold(function: Any, probes: list[list[Array]], results: list[Array], *, turned: bool) -> bool:
    """Whether of all probes the result is the function of the first two, then of that and the third, and so on."""
    if turned and (len(probes[0]) != 2 or function is not np.subtract):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        for values, result in zip(probes, results):
            first, *others = values[::-1] if turned else values
            for other in others:
                if any(a != b and 1 not in (a, b) for a, b in zip(first.shape, other.shape)):
                    return False
                first = function(first, other)
            if not np.array_equal(first, result, equal_nan=True):
                return False
    return True
