"""Ways of quantizing the clipped QuickNet, and those that `quantize_model` does not offer, as they are no better: the
sign after rounding, and formats chosen by squared error or by flipped signs instead of by percentile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic, fixed_point
from larq_clip._keras import keras, tf
from larq_clip.layers import Add, FixedPointBatchNormalization, QuantConv2D, StorageQuantizer
from larq_clip.models import binary_layers

# A quantized model, the clipped one it was made of, and the calibration photos, to a model.
Change: TypeAlias = Callable[[keras.Model, keras.Model, NDArray[np.float32]], keras.Model]


def sign_after_rounding(model: keras.Model, clipped: keras.Model, data: NDArray[np.float32]) -> keras.Model:
    """A copy of a quantized model in which binary layers see stored tensors where there are such.

    Raises:
        ValueError: where nothing would change.
    """
    storages = {
        layer.input.node.layer.name: layer.name for layer in model.layers if isinstance(layer, StorageQuantizer)
    }
    binary = {layer.name for layer in binary_layers(model)}
    config = model.get_config()
    changed = 0
    for layer in config["layers"]:
        if layer["name"] in binary:
            (source,) = layer["inbound_nodes"][0]
            changed += source[0] in storages
            source[0] = storages.get(source[0], source[0])
    if not changed:
        raise ValueError(f"no binary layer of model '{model.name}' has a stored tensor to see; quantize it first")
    copy = keras.Model.from_config(config)
    for layer in copy.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    return copy


# ---- Other ways of choosing formats ---------------------------------------------------------------------------------

CHUNK = 10  # photos at once
CANDIDATES = 6  # fraction bits per channel, from those that hold the largest value upwards


def least_squared_error(model: keras.Model, clipped: keras.Model, data: NDArray[np.float32]) -> keras.Model:
    """Give each channel of a stored tensor the fraction bits of least squared error over the data; in place."""
    return _choose_again(model, clipped, data, by_signs=False)


def fewest_flipped_signs(model: keras.Model, clipped: keras.Model, data: NDArray[np.float32]) -> keras.Model:
    """Give each channel of a stored tensor the fraction bits that flip fewest signs of the sums it is a term of, also
    behind a concatenation, the other operand exact; of equals, and elsewhere, those of least squared error; in place.
    """
    return _choose_again(model, clipped, data, by_signs=True)


def _choose_again(model: keras.Model, clipped: keras.Model, data: NDArray[np.float32], by_signs: bool) -> keras.Model:
    storages = [layer for layer in model.layers if isinstance(layer, StorageQuantizer)]
    sums = [list(_sums_of(layer)) if by_signs else [] for layer in storages]
    stored = [clipped.get_layer(layer.input.node.layer.name).output for layer in storages]
    probe = keras.Model(
        clipped.inputs, [[y, [clipped.get_layer(name).output for name, _ in found]] for y, found in zip(stored, sums)]
    )
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    largest = [np.zeros(y.shape[-1]) for y in stored]
    for chunk in chunks:
        for seen, (y, _) in zip(largest, probe(chunk, training=False)):
            np.maximum(seen, np.abs(y).reshape(-1, seen.size).max(0), out=seen)
    lowest = [fixed_point.storage_fraction_bits(seen, layer.bits) for seen, layer in zip(largest, storages)]
    errors, flips = ([np.zeros((CANDIDATES, f.size)) for f in lowest] for _ in range(2))
    for chunk in chunks:
        for i, (y, totals) in enumerate(probe(chunk, training=False)):
            y = np.asarray(y, np.float64).reshape(-1, lowest[i].size)
            for k in range(CANDIDATES):
                bits = _candidate(lowest[i], k)
                error = fixed_point.values(fixed_point.store_reals(y, bits, storages[i].bits), bits) - y
                errors[i][k] += (error**2).sum(0)
                for (_, channels), total in zip(sums[i], totals):
                    exact = np.asarray(total, np.float64)[..., channels].reshape(y.shape)
                    flips[i][k] += ((exact < 0) != (exact + error < 0)).sum(0)
    for layer, f, error, flipped in zip(storages, lowest, errors, flips):
        order = np.lexsort((error, flipped), axis=0)  # by flips, then by error
        chosen = _candidate(f, order[0]).tolist()
        layer.quantize(chosen)
        for node in layer.outbound_nodes:
            if hasattr(node.layer, "input_fraction_bits"):
                node.layer.quantize(chosen)
    return model


def _candidate(lowest: NDArray[np.int64], k: Any) -> NDArray[np.int64]:
    return np.minimum(lowest + k, fixed_point.LARGEST_FRACTION_BITS)


def _sums_of(layer: Any, start: int = 0, channels: int | None = None) -> Iterator[tuple[str, slice]]:
    """Names of the sums that a layer's output is a term of, and which of their channels it is added to."""
    channels = layer.output.shape[-1] if channels is None else channels
    for node in layer.outbound_nodes:
        if isinstance(node.layer, Add):
            yield node.layer.name, slice(start, start + channels)
        elif isinstance(node.layer, keras.layers.Concatenate):
            names = [tensor.node.layer.name for tensor in node.keras_inputs]
            before = sum(tensor.shape[-1] for tensor in node.keras_inputs[: names.index(layer.name)])
            yield from _sums_of(node.layer, start + before, channels)


# ---- The variants ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quantized:
    """A variant: arguments of `quantize_model`, or None for clips alone; what is done to the result; whether the report
    of `quantize_model` is recorded and layers are compared with the integer reference."""

    name: str
    arguments: dict[str, Any] | None = field(default_factory=dict)
    change: Change | None = None
    thorough: bool = False


VARIANTS = (
    Quantized("clip only", None),
    Quantized("all int8", thorough=True),
    Quantized("float stem and classifier", {"float_layers": "float32"}, thorough=True),
    Quantized("residual in 16 bits", {"residual_bits": 16}, thorough=True),
    Quantized("float stem, residual in 16 bits", {"float_layers": "float32", "residual_bits": 16}),
    Quantized("one format per tensor", {"granularity": "tensor"}),
    Quantized("Algorithm 2's variables", {"variables": "paper"}),
    Quantized("percentile 100 (the maximum)", {"percentile": 100}),
    Quantized("percentile 99.99", {"percentile": 99.99}),
    Quantized("percentile 99", {"percentile": 99}),
    Quantized("sign after rounding", {}, sign_after_rounding),
    Quantized("formats of least squared error", {}, least_squared_error),
    Quantized("formats that flip fewest signs", {}, fewest_flipped_signs),
)


# ---- The integer program --------------------------------------------------------------------------------------------


def inexact_layers(model: keras.Model, inputs: NDArray[np.float32], names: list[str]) -> list[str]:
    """Those of the named layers whose Keras output is not what the integer reference makes of their Keras inputs.

    Binary convolutions, fixed-point batch norms, sums and stored tensors, on real activations, bit for bit.

    Raises:
        TypeError: for a layer of another kind.
    """
    layers = [model.get_layer(name) for name in names]
    probe = keras.Model(model.inputs, [[layer.input, layer.output] for layer in layers])
    probe.trainable = False
    wrong = []
    for layer, (given, found) in zip(layers, probe(inputs, training=False)):
        expected = _integer_output(layer, [np.asarray(x, np.float64) for x in tf.nest.flatten(given)])
        if not np.array_equal(np.asarray(found, np.float64), expected):
            wrong.append(layer.name)
    return wrong


POINT = 36  # fraction bits that hold every exact tensor of the network


def _integers(x: NDArray[np.float64]) -> NDArray[np.int64]:
    q = np.ldexp(x, POINT)
    if np.any(q != np.floor(q)) or np.abs(q).max() >= 2.0**62:
        raise ValueError(f"a tensor is not an integer times 2^-{POINT}")
    return q.astype(np.int64)


def _integer_output(layer: Any, inputs: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    x = inputs[0]
    if isinstance(layer, QuantConv2D):
        clip = layer.accumulator_quantizer
        axes = tuple(
            arithmetic.window_axis(x.shape[1 + i], layer.kernel_size[i], layer.strides[i], 1, layer.padding)
            for i in (0, 1)
        )
        kernel = arithmetic.sign_bits(np.moveaxis(layer.kernel.numpy(), -1, 0))
        a = arithmetic.binary_conv2d(arithmetic.sign_bits(x), kernel, axes, int(layer.pad_values))
        return clip.step * arithmetic.clip_accumulator(a, clip.bits, clip.step).astype(np.float64)
    if isinstance(layer, FixedPointBatchNormalization):
        # Its inputs are accumulators and stored tensors: few fraction bits, so that the product fits int64.
        few = 12
        q = np.ldexp(x, few)
        if np.any(q != np.floor(q)):
            raise ValueError(f"the input of '{layer.name}' is not an integer times 2^-{few}")
        return fixed_point.values(*fixed_point.affine(q.astype(np.int64), layer.integers(), few))
    if isinstance(layer, Add):
        return fixed_point.values(*fixed_point.add(*((_integers(x), POINT) for x in inputs)))
    if isinstance(layer, StorageQuantizer):
        stored = fixed_point.store(_integers(x), POINT, layer.fraction_bits, layer.bits)
        return fixed_point.values(stored, layer.fraction_bits)
    raise TypeError(f"layer '{layer.name}' is a {type(layer).__name__}, for which there is no integer reference here")
