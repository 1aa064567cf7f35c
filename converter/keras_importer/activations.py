"""Activations, as layers of their own and as arguments of others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from larq_clip._binary import level_count, produces_signs
from larq_clip._identify import clip_bounds
from larq_clip._keras import keras, tf
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor
from larq_clip.converter.keras_importer import fixed_point
from larq_clip.converter.keras_importer.context import LayerImport, Step
from larq_clip.converter.keras_importer.pointwise import Operation, identify
from larq_clip.converter.keras_importer.quantizers import PROBES, level_numbers, levels, signs

ACCEPTED = (
    "accepted are 'linear', 'relu', 'relu6', 'leaky_relu', 'sigmoid', 'hard_sigmoid', 'tanh', 'softmax', clips between "
    "two numbers, and signs (larq.quantizers.SteSign())"
)


def activation_steps(call: LayerImport, function: Any) -> list[tuple[str, Step]]:
    """The steps of an activation, a function of numbers of any shape: none for a linear one."""
    if function is None or function is keras.activations.linear:
        return []
    if function in (keras.activations.relu, tf.nn.relu):
        return [("", _relu(call))]
    if produces_signs(function, [np.stack([PROBES, PROBES[::-1]], axis=1)]):
        return [("", lambda x, output: signs(call, function, x, output, "activation"))]
    if level_count(function):
        return [("", lambda x, output: _quantized(call, function, x, output))]
    return [("", lambda x, output: _identified(call, function, x, output))]


def _identified(call: LayerImport, function: Any, x: Tensor, output: str) -> Tensor:
    bounds = clip_bounds(function) if fixed_point.is_exact(call, x) else None
    if bounds is not None:
        return fixed_point.clip(call, x, *bounds, output)
    found = identify(function, x.shape)
    if found is None:
        name = getattr(function, "__name__", type(function).__name__)
        raise call.error(f"its activation is {name!r}", ACCEPTED)
    return apply(call, found, x, output)


def apply(call: LayerImport, operations: list[Operation], x: Tensor, output: str) -> Tensor:
    """A float32 tensor behind ops of single numbers; the last has the name `output`."""
    for place, (op_type, fields) in enumerate(operations):
        name = output if place == len(operations) - 1 else f"{output}:{place}"
        x = call.emit(op_type, call.builder.as_float(x), Tensor(name, DType.FLOAT32, x.shape), **fields)
    return x


def _relu(call: LayerImport) -> Step:
    def step(x: Tensor, output: str) -> Tensor:
        if fixed_point.is_exact(call, x):
            return fixed_point.relu(call, x, output)
        x = x if x.dtype is not DType.BIT else call.builder.as_float(x)
        return call.emit(ir.Affine, x, Tensor(output, DType.FLOAT32, x.shape), activation=ir.Activation.RELU)

    return step


def activation_layer(call: LayerImport, source: Tensor) -> Tensor:
    return call.run(source, activation_steps(call, call.layer.activation))


def quantizer_layer(call: LayerImport, source: Tensor) -> Tensor:
    """The bits of a sign, or the levels of SteHeaviside and DoReFa as numbers."""
    return _quantized(call, call.layer, source, call.name)


def _quantized(call: LayerImport, quantizer: Any, source: Tensor, output: str) -> Tensor:
    count = level_count(quantizer)
    if not count:
        return signs(call, quantizer, source, output, "output")
    return level_numbers(call, levels(call, quantizer, count, source, f"{output}:levels"), output)


def relu_layer(call: LayerImport, source: Tensor) -> Tensor:
    """max(x, 0), or slope x below 0, and at most max_value."""
    call.require("threshold", 0)
    slope, highest = float(call.layer.negative_slope), call.layer.max_value
    if slope == 0 and highest is None:
        return call.run(source, [("", _relu(call))])
    bounds = clip_bounds(call.layer) if fixed_point.is_exact(call, source) else None
    if bounds is not None:
        return fixed_point.clip(call, source, *bounds, call.name)
    operations: list[Operation] = [_slope(np.full((1, 1, 1), slope))] if slope else []
    if highest is not None:
        operations.append((ir.Affine, {"activation": ir.Activation(-np.inf if slope else 0, float(highest))}))
    return apply(call, operations, source, call.name)


def leaky_relu(call: LayerImport, source: Tensor) -> Tensor:
    """x, or alpha x below 0."""
    return apply(call, [_slope(np.full((1, 1, 1), float(call.layer.alpha)))], source, call.name)


def prelu(call: LayerImport, source: Tensor) -> Tensor:
    """x, or alpha x below 0, alpha by pixel or channel or both; Keras computes relu(x) - alpha relu(-x), which rounds
    the same product."""
    alpha = call.constant("alpha", call.layer.alpha)
    return apply(call, [_slope(alpha.reshape(ir.image_shape(alpha.shape)))], source, call.name)


def _slope(slope: NDArray) -> Operation:
    return ir.PReLU, {"slope": slope.astype(np.float32)}


def rescaling(call: LayerImport, source: Tensor) -> Tensor:
    """scale x + offset."""
    layer, channels = call.layer, source.shape[-1]
    fields = {
        name: np.array(np.broadcast_to(call.constant(name, value), (channels,)))
        for name, value in (("multiplier", layer.scale), ("offset", layer.offset))
    }
    return apply(call, [(ir.Affine, fields)], source, call.name)


def softmax_layer(call: LayerImport, source: Tensor) -> Tensor:
    call.require("axis", -1, len(source.shape))
    return apply(call, [(ir.Softmax, {})], source, call.name)
