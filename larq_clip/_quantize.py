"""`models.quantize_model`: from a clipped Keras model to one whose forward pass is an integer program."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from larq_clip import arithmetic, fixed_point
from larq_clip import layers as ours
from larq_clip._calibration import ExponentHistogram
from larq_clip._copying import config_of, copy_binary, without_mixed_precision
from larq_clip._distribution import Workers
from larq_clip._graph import INT8, QUANTIZERS, Call, refusal
from larq_clip._identify import is_symbolic, map_structure
from larq_clip._keras import keras
from larq_clip._plan import Plan, Tensor
from larq_clip._probe import chunks as _chunks
from larq_clip._probe import outputs as _outputs

Format = tuple[int, Any]  # bits, fraction bits (an integer or one per channel)


class Quantization(Plan):
    """One run of quantize_model: a plan where to store, calibrated and carried out."""

    def __init__(self, model: keras.Model, residual_bits: int, int8: bool, variables: str, by_channel: bool):
        super().__init__(model, residual_bits, int8)
        self.variables, self.by_channel = variables, by_channel
        self.formats: dict[tuple[int, int], Any] = {}
        self.replaced: dict[int, Any] = {}
        self.storages: dict[tuple[int, int], Any] = {}
        self.moves: dict[int, Any] = {}  # by the position of the call

    # ---- Calibration ------------------------------------------------------------------------------------------------

    def calibrate(self, batches: list[Any], percentile: Fraction, workers: Workers) -> None:
        """Choose fraction bits for every tensor to be stored, from one pass of the float model over all data."""
        places = list(self.stored)
        if not places:
            return
        histograms = [ExponentHistogram(int(tensor.shape[-1])) for tensor in self.stored.values()]
        probe = keras.Model(self.graph.model.inputs, list(self.stored.values()))
        for inputs in _chunks(batches):
            for histogram, value in zip(histograms, _outputs(probe, inputs)):
                histogram.add(np.asarray(value).astype(np.float64))
        for histogram in histograms:
            histogram.counts = workers.sum(histogram.counts)
        for (position, bits), histogram in zip(places, histograms):
            largest = histogram.covering(percentile, self.by_channel)
            if (position, bits) in self.level_stores:
                largest = np.ones_like(largest)  # levels are taken of 0 to 1, and beyond they do not change
            self.formats[position, bits] = fixed_point.storage_fraction_bits(largest, bits).tolist()

    def format_of(self, call: Call, tensor: Tensor) -> Format:
        """Bits and fraction bits of a stored tensor as a call sees it."""
        bits = self.edges.get((call.position, id(tensor)))
        producer = self.graph.by_output[id(tensor)]
        if bits:
            return bits, self.formats[producer.position, bits]
        if producer.kind == "binary":
            clip = producer.layer.accumulator_quantizer
            return clip.bits, -arithmetic.step_exponent(clip.step)
        found = [self.format_of(producer, source) for source in producer.inputs]
        if producer.kind == "concatenate":
            channels = [int(source.shape[-1]) for source in producer.inputs]
            joined = [np.broadcast_to(f, n) for (_, f), n in zip(found, channels)]
            return max(b for b, _ in found), np.concatenate(joined).tolist()
        bits, fraction_bits = found[0]
        if producer.kind == "take" and isinstance(fraction_bits, list):
            return bits, [fraction_bits[channel] for channel in producer.channels or ()]
        if isinstance(producer.layer, (keras.layers.Flatten, keras.layers.Reshape)) and isinstance(fraction_bits, list):
            fraction_bits = np.tile(fraction_bits, int(tensor.shape[-1]) // len(fraction_bits)).tolist()
        return bits, fraction_bits

    # ---- Rebuilding -------------------------------------------------------------------------------------------------

    def build(self) -> keras.Model:
        """The quantized model, with the weights of the given one."""
        model = self.graph.model
        if isinstance(model, keras.Sequential):
            result = self._build_sequential(model)
        else:
            result = self._build_functional(model)
        for call in self.graph.calls:
            layer = self.layer_of(call)
            layer.set_weights(call.layer.get_weights())
            if layer.trainable != call.layer.trainable:
                layer.trainable = call.layer.trainable
            if isinstance(layer, ours.FixedPointBatchNormalization):
                by_channel = self.by_channel and self.variables == "folded"
                layer.quantize(granularity="channel" if by_channel else "layer")
            elif call.position in self.fixed and call.kind == "float":
                layer.quantize(self.format_of(call, call.inputs[0])[1])
            elif call.kind == "binary" and layer.has_scale:
                layer.quantize_scale()
        return result

    def _build_sequential(self, model: keras.Sequential) -> keras.Sequential:
        # Keras makes the input layer of a Sequential itself; it is not among its layers.
        stack: list[Any] = [keras.layers.InputLayer.from_config(self.graph.calls[0].layer.get_config())]
        self.replaced[id(self.graph.calls[0].layer)] = stack[0]
        for call in self.graph.calls[1:]:
            storage = self._storage(call, call.inputs[0])
            stack += [layer for layer in (storage, self.layer_of(call)) if layer is not None]
        return keras.Sequential(stack, name=model.name)

    def _build_functional(self, model: keras.Model) -> keras.Model:
        tensors: dict[Any, Tensor] = {}

        def seen_by(call: Call, leaf: Any) -> Any:
            if not is_symbolic(leaf):
                return leaf
            storage = self._storage(call, leaf)
            if storage is None:
                return tensors[id(leaf)]
            if storage.name not in tensors:
                tensors[storage.name] = storage(tensors[id(leaf)])
            return tensors[storage.name]

        for call in self.graph.calls:
            layer = self.layer_of(call)
            if call.kind == "input":
                tensors[id(call.output)] = layer.output
            elif call.kind == "add":
                operands = [seen_by(call, tensor) for tensor in call.inputs]
                tensors[id(call.output)] = layer([self._padded(call, operand) for operand in operands])
            elif call.kind == "concatenate":
                tensors[id(call.output)] = layer([seen_by(call, tensor) for tensor in call.inputs])
            elif call.kind == "take":
                tensors[id(call.output)] = layer(seen_by(call, call.inputs[0]))
            else:
                args, kwargs = map_structure((call.node.call_args, call.node.call_kwargs), partial(seen_by, call))
                tensors[id(call.output)] = layer(*args, **kwargs)
        inputs, outputs = (map_structure(s, lambda leaf: tensors[id(leaf)]) for s in (model.input, model.output))
        return keras.Model(inputs, outputs, name=model.name)

    def _storage(self, call: Call, tensor: Tensor) -> Any:
        """The layer that stores an input of a call, None where it comes as it is."""
        bits = self.edges.get((call.position, id(tensor)))
        if not bits:
            return None
        producer = self.graph.by_output[id(tensor)]
        key = (producer.position, bits)
        if key not in self.storages:
            nodes = [other for other in self.graph.calls if other.layer is producer.layer]
            name = f"{producer.layer.name}_int{bits}" + (f"_{nodes.index(producer)}" if len(nodes) > 1 else "")
            self.storages[key] = ours.StorageQuantizer(bits, self.formats[key], name=name)
        return self.storages[key]

    @staticmethod
    def _padded(call: Call, operand: Tensor) -> Tensor:
        """An operand of a sum with zeros around its channels, where it has fewer than the sum."""
        after = int(call.output.shape[-1]) - int(operand.shape[-1]) - call.before
        if operand.shape[-1] == call.output.shape[-1]:
            return operand
        return ours.PadChannels(call.before, after, name=f"{call.layer.name}_pad")(operand)

    def layer_of(self, call: Call) -> Any:
        """The layer in the place of a call's; a layer called twice stays one, but moves of channels do not."""
        original, fixed = call.layer, call.position in self.fixed
        if call.kind == "take":
            if call.position not in self.moves:
                self.moves[call.position] = self._move(call)
            return self.moves[call.position]
        if id(original) in self.replaced:
            first = self.first_call(call)
            if first is not call and (fixed and call.kind == "float" or fixed != (first.position in self.fixed)):
                raise refusal(original, "it is called more than once", "layers of their own for each place")
            return self.replaced[id(original)]
        config = without_mixed_precision(config_of(original))
        if call.kind == "add":
            layer = ours.Add(name=original.name)
        elif call.kind == "concatenate":
            layer = ours.Concatenate(name=original.name)
        elif call.kind == "norm" and fixed:
            layer = ours.FixedPointBatchNormalization.from_config({**config, "variables": self.variables})
        elif call.kind == "float" and fixed:
            layer = self._int8_layer(original, config)
        elif call.kind == "binary":
            layer = copy_binary(original)
        elif call.kind in ("monotone", "clip", "mean") and self.state[id(call.output)] in ("stored", "exact"):
            # In float32 a sum wider than that would be rounded here.
            layer = type(original).from_config({**config, "dtype": "float64"})
        else:
            layer = type(original).from_config(config)
        self.replaced[id(original)] = layer
        return layer

    def first_call(self, call: Call) -> Call:
        """The first call of a layer that may be called several times."""
        if call.kind == "take":
            return call
        return next(other for other in self.graph.calls if other.layer is call.layer)

    def _move(self, call: Call) -> Any:
        others = [other for other in self.graph.calls if other.layer is call.layer]
        name = call.layer.name if len(others) == 1 else f"{call.layer.name}_{others.index(call)}"
        if call.identity:
            return keras.layers.Activation("linear", name=name, autocast=False)
        return ours.TakeChannels(call.channels or [], name=name)

    @staticmethod
    def _int8_layer(original: Any, config: dict[str, Any]) -> Any:
        if config.pop("pad_values", 0.0) != 0:
            raise refusal(original, "its pad_values are not 0", "pad_values=0")
        for name in QUANTIZERS:
            config.pop(name, None)
        return INT8[type(original)].from_config(config)


__all__ = ["Quantization"]
