"""Choosing steps and fraction bits from data: histograms of magnitudes, and the smallest range that covers them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from larq_clip import arithmetic, fixed_point
from larq_clip._distribution import local_batches
from larq_clip._keras import keras, lq, tf
from larq_clip._scope import quantized_scope
from larq_clip.quantizers import LARGEST_EXPONENT

BATCH = 32


def check_percentile(percentile: Any) -> Fraction:
    """The percentile as the decimal fraction that was written down, since 99.99 is no binary one."""
    if (
        isinstance(percentile, bool)
        or not isinstance(percentile, (int, float, np.integer, np.floating))
        or not 0 < percentile <= 100
    ):
        raise ValueError(f"percentile is {percentile!r}; accepted are numbers above 0, up to 100")
    return Fraction(str(percentile))


class AccumulatorHistogram(lq.quantizers.Quantizer):
    """Counts how often each |accumulator| occurs; lets everything pass. Never part of a model handed out.

    With positive_only, negative accumulators count as 0: a relu makes them 0 whatever a clip does to them. `signs` says
    that they are sums of signs, which are all even or all odd at a pixel.
    """

    def __init__(self, positive_only: bool = False, signs: bool = True, **kwargs):
        super().__init__(**{**kwargs, "autocast": False})
        self.positive_only = positive_only
        self.counts = np.zeros(1, np.int64)
        self.all_even = signs

    def _count(self, accumulator: np.ndarray) -> None:
        self.all_even = self.all_even and not np.any(accumulator % 2)
        reach = np.maximum(accumulator, 0) if self.positive_only else np.abs(accumulator)
        # Accumulators are integers; pad values other than -1, 0 and 1 could make them others, which are rounded up.
        found = np.bincount(np.ceil(reach).astype(np.int64).ravel())
        size = max(found.size, self.counts.size)
        self.counts = np.pad(self.counts, (0, size - self.counts.size)) + np.pad(found, (0, size - found.size))

    def call(self, inputs):
        tf.numpy_function(self._count, [inputs], [])
        return inputs

    def smallest_step(self, bits: int, percentile: Fraction) -> int:
        """The smallest power of two s >= 1 with at least `percentile` percent of |a| <= s (2^(bits-1) - 1).

        Where all accumulators are even s >= 2, since that doubles the range and rounds nothing. Whether one is even
        depends on the number of taps at its pixel only, so any image tells it for all.
        """
        needed = percentile * int(self.counts.sum()) / 100
        for exponent in range(1 if self.all_even else 0, LARGEST_EXPONENT + 1):
            largest = arithmetic.clip_limit(bits) << exponent
            if int(self.counts[: largest + 1].sum()) >= needed:
                return 1 << exponent
        raise AssertionError("an accumulator exact in float32 is below 2^24, so the last step covers all of them")


def feeds_relu_only(model: keras.Model, layer: Any) -> bool:
    """Whether all that sees the accumulators of a layer is a relu: its own, or layers behind it; no bias in between."""
    if layer.use_bias:
        return False
    if _is_relu(layer.activation):
        return True
    if layer.activation is not keras.activations.linear:
        return False
    models = [model, *(inner for inner in model.submodules if isinstance(inner, keras.Model))]
    nodes = [node for each in models for depth in each._nodes_by_depth.values() for node in depth]
    own = {id(node.outputs) for node in nodes if node.layer is layer}
    seen_outside = any(id(tensor) in own for each in models for tensor in each.outputs)
    consumers = [node.layer for node in nodes if any(id(tensor) in own for tensor in node.keras_inputs)]
    return bool(consumers) and not seen_outside and all(map(_is_relu_layer, consumers))


def _is_relu_layer(layer: Any) -> bool:
    if type(layer) is keras.layers.ReLU:
        return not layer.negative_slope and not layer.threshold
    return type(layer) is keras.layers.Activation and _is_relu(layer.activation)


def _is_relu(activation: Any) -> bool:
    return activation is keras.activations.relu


class ExponentHistogram:
    """Counts, per channel (the last axis), the smallest power of two that each |y| does not exceed."""

    LOWEST, HIGHEST = -64, 64  # exponents that are told apart

    def __init__(self, channels: int):
        self.counts = np.zeros((channels, self.HIGHEST - self.LOWEST + 2), np.int64)  # column 0 is for zeros

    def add(self, y: np.ndarray) -> None:
        """Count the elements of ``(..., channels)``."""
        channels, width = self.counts.shape
        y = np.abs(y.reshape(-1, channels))
        exponents = np.clip(fixed_point.ceil_log2(np.where(y == 0, 1.0, y)), self.LOWEST, self.HIGHEST)
        columns = np.where(y == 0, 0, exponents - self.LOWEST + 1) + width * np.arange(channels)
        self.counts += np.bincount(columns.ravel(), minlength=self.counts.size).reshape(self.counts.shape)

    def covering(self, percentile: Fraction, by_channel: bool) -> np.ndarray:
        """The smallest power of two that at least `percentile` percent do not exceed; the largest seen where that is 0.

        ``(channels,)``, or () over all channels; 0 where there was nothing but zeros.
        """
        counts = self.counts if by_channel else self.counts.sum(0, keepdims=True)
        found = np.array([self._covering(row, percentile) for row in counts])
        return found if by_channel else found[0]

    def _covering(self, counts: np.ndarray, percentile: Fraction) -> float:
        needed = percentile * int(counts.sum()) / 100
        column = next(i for i, total in enumerate(np.cumsum(counts)) if int(total) >= needed)
        if column == 0:
            column = int(np.max(np.nonzero(counts)[0]))
        return 0.0 if column == 0 else 2.0 ** (column - 1 + self.LOWEST)


def batches_of(model: keras.Model, calibration_data: Any) -> list[Any]:
    """The inputs of all batches of calibration data.

    Raises:
        TypeError: for calibration data of no accepted kind.
        ValueError: where it is empty, holds numbers that are not finite, or does not fit the model's inputs.
    """
    if calibration_data is None:
        raise ValueError("calibration_data is None; give an array of inputs, or an iterable of batches")
    found = list(_checked_batches(model, calibration_data, "calibration_data"))
    if not found:
        raise ValueError("calibration_data is empty; give at least one image or batch")
    return found


def observe(model: keras.Model, data: Any, name: str = "calibration_data") -> None:
    """Run a model, in inference mode, over calibration data; `name` is what errors call it.

    Raises:
        TypeError: for data of no accepted kind.
        ValueError: where it is empty, holds numbers that are not finite, or does not fit the model's inputs.
    """
    batches = 0
    for inputs in _checked_batches(model, data, name):
        with quantized_scope():
            model(tf.nest.map_structure(tf.convert_to_tensor, inputs), training=False)
        batches += 1
    if not batches:
        raise ValueError(f"{name} is empty; give at least one image or batch")


def _checked_batches(model: keras.Model, data: Any, name: str) -> Iterator[Any]:
    for inputs in _batches(data, name):
        _check_inputs(model, inputs, name)
        yield inputs


def _batches(data: Any, name: str) -> Iterator[Any]:
    """The inputs of each batch: slices of arrays, or what an iterable yields without its labels."""
    if data is None:
        raise ValueError("step='auto' needs calibration_data: an array of inputs, or an iterable of batches")
    if isinstance(data, np.ndarray) or tf.is_tensor(data) or isinstance(data, Mapping):
        arrays = tf.nest.flatten(data)
        sizes = {int(np.shape(array)[0]) if np.ndim(array) else 0 for array in arrays}
        if len(sizes) != 1:
            raise ValueError(f"{name} has arrays of different lengths: {sorted(sizes)}")
        for start in range(0, sizes.pop(), BATCH):
            yield tf.nest.map_structure(lambda array, start=start: array[start : start + BATCH], data)
        return
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise TypeError(
            f"{name} is of type {type(data).__name__}; accepted are an array of inputs, a dict of such "
            "arrays by input name, and an iterable (tf.data.Dataset, distributed dataset, keras.utils.Sequence, list, "
            "generator) of batches x or (x, y)"
        )
    _refuse_endless(data, name)
    for distributed in data:
        for batch in local_batches(distributed):
            yield keras.utils.unpack_x_y_sample_weight(batch)[0] if isinstance(batch, tuple) else batch


def _refuse_endless(data: Any, name: str) -> None:
    cardinality = getattr(data, "cardinality", None)  # a method of datasets, an attribute of distributed ones
    cardinality = cardinality() if callable(cardinality) else cardinality
    if cardinality is not None and int(cardinality) == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"{name} is an infinite dataset, of which every batch would be used; accepted are finite ones, so leave "
            "out repeat(), or give as many batches as you want with take(n)"
        )


def _check_inputs(model: keras.Model, inputs: Any, data_name: str) -> None:
    if model.inputs is None:  # a subclassed model, which checks what it is given itself
        return
    expected = {tensor.name.split(":")[0]: tensor.shape for tensor in model.inputs}
    if isinstance(inputs, Mapping):
        if set(inputs) != set(model.input_names):
            raise ValueError(
                f"{data_name} has the inputs {sorted(inputs)}; model '{model.name}' has {sorted(model.input_names)}"
            )
        given = [inputs[name] for name in model.input_names]
    else:
        given = list(inputs) if isinstance(inputs, (list, tuple)) and len(expected) > 1 else [inputs]
    if len(given) != len(expected):
        raise ValueError(
            f"{data_name} has batches of {len(given)} inputs; model '{model.name}' has {len(expected)}: "
            f"{list(model.input_names)}"
        )
    for name, array, tensor in zip(model.input_names, given, model.inputs):
        array = np.asarray(array)
        if not array.size:
            raise ValueError(f"{data_name} has a batch without elements, of shape {array.shape}")
        if not tensor.shape.is_compatible_with(array.shape):
            raise ValueError(
                f"{data_name} has batches of shape {array.shape} for input '{name}' of model '{model.name}'; "
                f"accepted is {tuple(tensor.shape)}"
            )
        if not np.issubdtype(array.dtype, np.number):
            raise ValueError(f"{data_name} for input '{name}' is of type {array.dtype}; accepted are numbers")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{data_name} for input '{name}' holds numbers that are not finite (NaN or infinity)")
