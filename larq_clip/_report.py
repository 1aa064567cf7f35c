"""What quantization does to each layer: the report of `models.quantize_model`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from larq_clip import fixed_point
from larq_clip import layers as ours
from larq_clip._distribution import Workers
from larq_clip._graph import GRID_ACTIVATIONS
from larq_clip._keras import keras
from larq_clip._probe import chunks, outputs

if TYPE_CHECKING:
    from larq_clip._quantize import Quantization


class LayerReport(NamedTuple):
    """What quantization does to one layer's output, over the calibration data, against the float model.

    Attributes:
        layer: its name.
        kind: of its class in the quantized model.
        format: of the layer: "int8, fraction bits 3 to 7" for a stored tensor, "int16, fraction bits 12" for a batch
            norm; "float32" for what is kept in floating point, "" for what computes on the grid of its input.
        snr_db: 10 log10(sum y^2 / sum (y - y')^2) in decibels, y of the float model; infinite where all are equal.
        flipped_signs: of binary layers, the share of inputs whose sign, or level, differs; else None.
    """

    layer: str
    kind: str
    format: str
    snr_db: float
    flipped_signs: float | None


def compare(run: Quantization, quantized: keras.Model, batches: list[Any], workers: Workers) -> list[LayerReport]:
    """A row for each layer: its output in the quantized model against that in the float model, over all data."""
    rows, floats, integers = [], [], []
    for call in run.graph.calls:
        if call.kind != "output" and run.first_call(call) is call:
            layer = run.layer_of(call)
            if call.kind != "input":
                rows.append((layer, call.kind == "binary", _describe(layer, call.kind)))
                floats.append([call.output, call.inputs[0]])
                integers.append([layer.get_output_at(0), _operand(layer.get_input_at(0))])
        for bits in fixed_point.STORED_BITS:
            storage = run.storages.get((call.position, bits))
            if storage is not None:
                rows.append((storage, False, _describe(storage, "")))
                floats.append([call.output] * 2)
                integers.append([storage.output] * 2)
    signal, noise, flips, signs = np.zeros((4, len(rows)))
    one, other = keras.Model(run.graph.model.inputs, floats), keras.Model(quantized.inputs, integers)
    for inputs in chunks(batches):
        for i, ((y, x), (found, seen)) in enumerate(zip(outputs(one, inputs), outputs(other, inputs))):
            y, found = np.asarray(y, np.float64), np.asarray(found, np.float64)
            signal[i] += np.sum(y**2)
            noise[i] += np.sum((y - found) ** 2)
            flips[i] += np.count_nonzero(_bits(rows[i][0], x) != _bits(rows[i][0], seen))
            signs[i] += np.size(x)
    signal, noise, flips, signs = workers.gather(np.stack([signal, noise, flips, signs])).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        decibels = np.where(noise == 0, np.inf, 10 * np.log10(signal / noise))
    return [
        LayerReport(
            layer.name,
            type(layer).__name__,
            words,
            float(decibels[i]),
            float(flips[i] / signs[i]) if binary else None,
        )
        for i, (layer, binary, words) in enumerate(rows)
    ]


def _describe(layer: Any, kind: str) -> str:
    """The format of a layer in words."""
    if isinstance(layer, ours.FixedPointBatchNormalization):
        own = layer.variable_fraction_bits
        return f"int16, {_span(layer.fraction_bits)}" + ("" if own is None else f", variables {own}")
    if isinstance(layer, ours.StorageQuantizer):
        return f"int{layer.bits}, {_span(layer.fraction_bits)}"
    if getattr(layer, "kernel_steps", None):
        real = "" if layer.activation.__name__ in GRID_ACTIVATIONS else f", {layer.activation.__name__} in float64"
        return f"int8, input {_span(layer.input_fraction_bits)}{real}"
    clip = getattr(layer, "accumulator_quantizer", None)
    if clip is None:
        return "float32" if kind in ("real", "kept", "float", "norm") else ""
    scale = f", scale int16, {_span(layer.scale_fraction_bits)}" if layer.has_scale else ""
    return f"int{clip.bits}, step {clip.step}{scale}"


def _bits(layer: Any, x: Any) -> np.ndarray:
    """What a binary layer makes of its input: levels, or whether it is negative."""
    if getattr(layer, "input_levels", None) is not None:
        return np.asarray(layer.input_quantizer(x))
    return np.asarray(x) < 0


def _operand(tensors: Any) -> Any:
    return tensors[0] if isinstance(tensors, list) else tensors


def _span(fraction_bits: Any) -> str:
    low, high = int(np.min(fraction_bits)), int(np.max(fraction_bits))
    return f"fraction bits {low}" if low == high else f"fraction bits {low} to {high}"


__all__ = ["LayerReport", "compare"]
