"""What a clipped model consists of, for `models.quantize_model`: its calls in order, and what each one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from larq_clip import layers as ours
from larq_clip._binary import REPLACED_BY, is_binary
from larq_clip._identify import clip_bounds, is_code, is_concatenation, is_symbolic, moved_channels, padded_sum
from larq_clip._int8 import Int8Conv2D, Int8Dense, Int8DepthwiseConv2D
from larq_clip._keras import keras, lq
from larq_clip.quantizers import AccumulatorClip

# What these produce is among what they get, and in the same order, channel by channel; or 0.
MONOTONE = (
    keras.layers.MaxPooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.ReLU,
    keras.layers.Activation,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping2D,
)
# Real-valued by nature: kept in float32, and stored behind.
REAL = (
    keras.layers.Activation,
    keras.layers.ELU,
    keras.layers.LeakyReLU,
    keras.layers.Multiply,
    keras.layers.PReLU,
    keras.layers.ReLU,
    keras.layers.Softmax,
    keras.layers.ThresholdedReLU,
)
REAL_OPERATIONS = ("math.multiply", "math.sigmoid", "math.tanh", "nn.leaky_relu", "nn.softmax")
MEANS = (keras.layers.AveragePooling2D, keras.layers.GlobalAveragePooling2D)
INT8 = {
    keras.layers.Conv2D: Int8Conv2D,
    keras.layers.DepthwiseConv2D: Int8DepthwiseConv2D,
    keras.layers.Dense: Int8Dense,
    lq.layers.QuantConv2D: Int8Conv2D,
    lq.layers.QuantDepthwiseConv2D: Int8DepthwiseConv2D,
    lq.layers.QuantDense: Int8Dense,
    ours.QuantConv2D: Int8Conv2D,
    ours.QuantDense: Int8Dense,
}
FIXED_POINT = (
    ours.Add,
    ours.Concatenate,
    ours.FixedPointBatchNormalization,
    ours.PadChannels,
    ours.StorageQuantizer,
    ours.TakeChannels,
    Int8Conv2D,
    Int8Dense,
    Int8DepthwiseConv2D,
)
QUANTIZERS = ("input_quantizer", "kernel_quantizer", "depthwise_quantizer", "accumulator_quantizer")
GRID_ACTIVATIONS = ("linear", "relu")
SIGN_PATH = ("norm", "monotone", "clip", "take")
# Monotone layers that levels can be taken in front of, as thresholds: they move no pixel.
LEVEL_PATH = (
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
    keras.layers.Activation,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
)


@dataclass(eq=False)
class Call:
    """One call of a layer: an operation of the graph.

    Attributes:
        kind: "input", "binary", "norm", "float" (a layer that is not binary), "kept" (a Larq layer with other
            quantizers), "add", "concatenate", "monotone", "clip" (between bounds that may be off a stored tensor's
            grid), "take" (channels of its input), "mean", "real" (kept in float32) or "output" (an activation that only
            outputs see).
        node: of Keras; its call arguments hold the tensors.
        part: which of the node's outputs; each is a call of its own.
        channels: of "take", which ones of the input.
        before: of "add", channels of zeros in front of the narrower operand.
    """

    layer: Any
    kind: str
    node: Any
    inputs: list[Any]
    output: Any
    position: int
    part: int = 0
    channels: list[int] | None = None
    before: int = 0
    consumers: list[Call] = field(default_factory=list)

    @property
    def elementwise(self) -> bool:
        """Whether it is computed element by element, before anything is written to memory."""
        return (
            self.kind == "clip" or isinstance(self.layer, (keras.layers.Activation, keras.layers.ReLU)) or self.identity
        )

    @property
    def takes_levels(self) -> bool:
        """Whether it is a binary layer whose input is more than one bit."""
        return self.kind == "binary" and (getattr(self.layer, "input_levels", None) or 1) > 1

    @property
    def passes_levels(self) -> bool:
        """Whether levels behind it are thresholds in front of it, channel by channel."""
        if isinstance(self.layer, keras.layers.Flatten):
            return all(consumer.kind == "binary" for consumer in self.consumers)
        return self.kind in ("norm", "clip") or isinstance(self.layer, LEVEL_PATH) or self.identity

    @property
    def identity(self) -> bool:
        """Whether the output is the input, whatever the layer is called."""
        return self.channels is not None and self.channels == list(range(self.inputs[0].shape[-1]))


class Graph:
    """The calls of a functional or Sequential model without nested ones, in execution order."""

    def __init__(self, model: keras.Model):
        self.model = model
        self.calls: list[Call] = []
        self.by_output: dict[int, Call] = {}
        self.outputs = {id(tensor) for tensor in model.outputs}
        nodes = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
        for node in nodes:
            outputs = keras_tensors(node.outputs)
            inputs = [] if node.is_input else keras_tensors((node.call_args, node.call_kwargs))
            moved = moved_channels(node, inputs) if is_code(node.layer) else None
            if len(outputs) != 1 and moved is None:
                raise refusal(node.layer, f"it has {len(outputs)} outputs", "layers with one output, and splits")
            for part, output in enumerate(outputs):
                channels = None if moved is None else moved[part]
                call = Call(node.layer, "", node, inputs, output, len(self.calls), part, channels)
                self.calls.append(call)
                self.by_output[id(call.output)] = call
        for call in self.calls:
            for tensor in call.inputs:
                self.by_output[id(tensor)].consumers.append(call)
        for call in reversed(self.calls):  # consumers first: what only outputs see is told by them
            call.kind = self._kind(call)

    def _kind(self, call: Call) -> str:
        layer = call.layer
        if isinstance(layer, keras.layers.InputLayer):
            return "input"
        if isinstance(layer, keras.Model):
            raise refusal(layer, "it is a nested model", "models without nested ones")
        if isinstance(layer, FIXED_POINT):
            raise refusal(layer, "it is in fixed point already", "a model as clip_model returns it")
        if type(layer) in REPLACED_BY and is_binary(layer):
            _require_clip(layer)
            return "binary"
        if type(layer) in INT8:
            plain = all(getattr(layer, name, None) is None for name in QUANTIZERS)
            return "float" if plain else "kept"
        if type(layer) is keras.layers.BatchNormalization:
            return "norm"
        if call.channels is not None:
            return "take"
        if type(layer) is keras.layers.Add or _is_operation(call, "math.add", "__operators__.add"):
            return _require_tensors(call, "add")
        if type(layer) is keras.layers.Concatenate or _is_operation(call, "concat"):
            return _require_tensors(call, "concatenate")
        if type(layer) in MEANS:
            return "mean"
        if type(layer) in MONOTONE and _keeps_the_grid(call):
            return "monotone"
        if type(layer) in (keras.layers.Activation, keras.layers.Softmax) and self.reaches_outputs_only(call):
            return "output"
        if is_code(layer) and is_concatenation(call.node, call.inputs):
            return "concatenate"
        if is_code(layer):
            before = padded_sum(call.node, call.inputs)
            if before is not None:
                call.before = before
                return "add"
        if type(layer) in (keras.layers.Activation, keras.layers.ReLU) and clip_bounds(layer) is not None:
            return "clip"
        if type(layer) in REAL or _is_operation(call, *REAL_OPERATIONS):
            return "real"
        what = f"it is {type(layer).__name__}"
        if is_code(layer):
            what += (
                ", whose code is none of those known by what they compute: slices, splits and shuffles of channels, "
                "concatenations, sums, sums with a narrower tensor padded with zeros"
            )
        raise refusal(
            layer,
            what,
            "batch norm, activations, multiplication, max and average pooling, padding, flatten, dropout, addition, "
            "concatenation, convolutions and dense layers",
        )

    def reaches_outputs_only(self, call: Call) -> bool:
        """Whether everything behind a call is an activation at the end of the model."""
        return all(consumer.kind == "output" for consumer in call.consumers)

    def sees_alone(self, call: Call, tensor: Any) -> bool:
        """Whether a call is all that needs a tensor."""
        return self.by_output[id(tensor)].consumers == [call] and id(tensor) not in self.outputs

    def decides_signs_only(self, call: Call, levels: bool = False) -> bool:
        """Whether of what a call produces, behind batch norms and monotone layers, binary layers see the sign; with
        `levels`, whether they see that, or levels that are thresholds of what the call produces."""
        if id(call.output) in self.outputs or not call.consumers:
            return False
        return all(
            (consumer.kind == "binary" and (levels or not consumer.takes_levels))
            or (
                consumer.kind in SIGN_PATH
                and self.decides_signs_only(consumer, levels=levels and consumer.passes_levels)
            )
            for consumer in call.consumers
        )


def keras_tensors(structure: Any) -> list[Any]:
    """The symbolic tensors in nested arguments."""
    return [leaf for leaf in keras_flatten(structure) if is_symbolic(leaf)]


def keras_flatten(structure: Any) -> list[Any]:
    """The leaves of nested lists, tuples and dicts."""
    if isinstance(structure, dict):
        structure = list(structure.values())
    if isinstance(structure, (list, tuple)):
        return [leaf for element in structure for leaf in keras_flatten(element)]
    return [structure]


def refusal(layer: Any, why: str, accepted: str) -> ValueError:
    """The error for a layer that quantize_model cannot take."""
    return ValueError(
        f"layer '{layer.name}' ({type(layer).__name__}) cannot be quantized: {why}; accepted are {accepted}"
    )


def _require_clip(layer: Any) -> None:
    clip = layer.accumulator_quantizer if hasattr(layer, "accumulator_quantizer") else None
    if not isinstance(clip, AccumulatorClip):
        raise ValueError(
            f"binary layer '{layer.name}' has no AccumulatorClip: clip before you quantize, with "
            "larq_clip.models.clip_model(model, step='auto', calibration_data=...)"
        )
    if not clip.enabled:
        raise ValueError(
            f"the clip of binary layer '{layer.name}' is off; switch it on with "
            "larq_clip.models.set_clipping(model, True), and train the second stage where the step is not calibrated"
        )
    if layer.activation.__name__ not in GRID_ACTIVATIONS:
        raise refusal(layer, f"its activation is {layer.activation.__name__!r}", f"{list(GRID_ACTIVATIONS)}")


def _is_operation(call: Call, *names: str) -> bool:
    return type(call.layer).__name__ == "TFOpLambda" and call.layer.get_config()["function"] in names


def _require_tensors(call: Call, kind: str) -> str:
    shapes: Sequence[Any] = [tensor.shape for tensor in call.inputs]
    if len(shapes) < 2:
        raise refusal(call.layer, "it has an operand that is no tensor of the model", "sums of layers' outputs")
    if kind == "add" and any(list(shape[1:]) != list(shapes[0][1:]) for shape in shapes):
        raise refusal(call.layer, f"its operands have the shapes {[tuple(s) for s in shapes]}", "equal shapes")
    if kind == "concatenate":
        axis = call.node.call_kwargs.get("axis", call.node.call_args[1] if len(call.node.call_args) > 1 else None)
        axis = getattr(call.layer, "axis", axis)
        if axis not in (-1, len(shapes[0]) - 1):
            raise refusal(call.layer, f"it joins along axis {axis}", "the last axis, that of the channels")
    return kind


def _keeps_the_grid(call: Call) -> bool:
    layer = call.layer
    if isinstance(layer, keras.layers.Reshape):  # channels must stay in order: c, or position modulo c
        channels, after = call.inputs[0].shape[-1], call.output.shape[-1]
        return after is not None and after % channels == 0
    if isinstance(layer, keras.layers.Activation):
        return getattr(layer.activation, "__name__", "") in GRID_ACTIVATIONS
    if isinstance(layer, keras.layers.ReLU):
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return True
