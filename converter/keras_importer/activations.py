"""Activations, as layers of their own and as arguments of others."""

from __future__ import annotations

from typing import Any

from larq_clip._binary import produces_signs
from larq_clip._keras import keras, tf
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor
from larq_clip.converter.keras_importer import fixed_point
from larq_clip.converter.keras_importer.context import LayerImport, Step
from larq_clip.converter.keras_importer.quantizers import PROBES, signs


def activation_steps(call: LayerImport, function: Any) -> list[tuple[str, Step]]:
    """The steps of an activation: none for a linear one."""
    if function is None or function is keras.activations.linear:
        return []
    if function in (keras.activations.relu, tf.nn.relu):
        return [("", _relu(call))]
    if function in (keras.activations.softmax, tf.nn.softmax):
        return [("", _softmax(call))]
    if produces_signs(function, [PROBES]):
        return [("", lambda x, output: signs(call, function, x, output, "activation"))]
    name = getattr(function, "__name__", type(function).__name__)
    raise call.error(
        f"its activation is {name!r}", "accepted are 'linear', 'relu', 'softmax' and signs (larq.quantizers.SteSign())"
    )


def _relu(call: LayerImport) -> Step:
    def step(x: Tensor, output: str) -> Tensor:
        if fixed_point.is_exact(call, x):
            return fixed_point.relu(call, x, output)
        x = x if x.dtype is not DType.BIT else call.builder.as_float(x)
        return call.emit(ir.Affine, x, Tensor(output, DType.FLOAT32, x.shape), activation=ir.Activation.RELU)

    return step


def _softmax(call: LayerImport) -> Step:
    return lambda x, output: call.emit(ir.Softmax, call.builder.as_float(x), Tensor(output, DType.FLOAT32, x.shape))


def activation_layer(call: LayerImport, source: Tensor) -> Tensor:
    return call.run(source, activation_steps(call, call.layer.activation))


def quantizer_layer(call: LayerImport, source: Tensor) -> Tensor:
    return signs(call, call.layer, source, call.name, "output")


def relu_layer(call: LayerImport, source: Tensor) -> Tensor:
    call.require("max_value", None)
    call.require("negative_slope", 0)
    call.require("threshold", 0)
    return call.run(source, [("", _relu(call))])


def softmax_layer(call: LayerImport, source: Tensor) -> Tensor:
    call.require("axis", -1, len(source.shape))
    return call.run(source, [("", _softmax(call))])
