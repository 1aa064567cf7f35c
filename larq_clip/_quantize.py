"""`models.quantize_model`: from a clipped Keras model to one whose forward pass is an integer program."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from larq_clip import arithmetic, fixed_point
from larq_clip import layers as ours
from larq_clip._batch_norm import config_of, require_statistics_of
from larq_clip._calibration import ExponentHistogram
from larq_clip._distribution import Workers
from larq_clip._graph import INT8, QUANTIZERS, Call, Graph, is_elementwise, is_symbolic, refusal
from larq_clip._keras import keras, tf

CHUNK = 8  # images at once, where the tensors of all layers are held
WIDEST = 53 - 16  # bits of an integer that float64 still holds times the multiplier of a batch norm
ENDLESS = 64

Tensor = Any
Format = tuple[int, Any]  # bits, fraction bits (an integer or one per channel)


class LayerReport(NamedTuple):
    """What quantization does to one layer's output, over the calibration data, against the float model.

    Attributes:
        layer: its name.
        kind: of its class in the quantized model.
        format: of the layer: "int8, fraction bits 3 to 7" for a stored tensor, "F = 12" for a batch norm.
        snr_db: 10 log10(sum y^2 / sum (y - y')^2) in decibels, y of the float model; infinite where all are equal.
        flipped_signs: of binary layers, the share of inputs whose sign differs; else None.
    """

    layer: str
    kind: str
    format: str
    snr_db: float
    flipped_signs: float | None


class Quantization:
    """One run of quantize_model: plan where to store, calibrate, rebuild."""

    def __init__(self, model: keras.Model, residual_bits: int, int8: bool, variables: str, by_channel: bool):
        self.graph = Graph(model)
        require_clips(self.graph)
        require_statistics(self.graph)
        self.residual_bits, self.int8 = residual_bits, int8
        self.variables, self.by_channel = variables, by_channel
        # Of each tensor: "exact" (integers too wide to keep), "float", or "stored" in 8 or 16 bits.
        self.state: dict[int, str] = {}
        self.bits: dict[int, int] = {}
        self.width: dict[int, int] = {}  # bits, at most, of the integers of an exact tensor
        self.fixed: set[int] = set()  # calls that change into layers of fixed point
        self.stored: dict[tuple[int, int], Tensor] = {}  # (position of the call, bits) to store in
        self.edges: dict[tuple[int, int], int] = {}  # (position of the consumer, id of its input) to those bits
        for call in self.graph.calls:
            self._plan(call)
        self.formats: dict[tuple[int, int], Any] = {}
        self.replaced: dict[int, Any] = {}
        self.storages: dict[tuple[int, int], Any] = {}

    # ---- Where to store ---------------------------------------------------------------------------------------------

    def _plan(self, call: Call) -> None:
        """Decide which inputs of a call are stored in front of it, and what its output is."""
        states = [self.state[id(tensor)] for tensor in call.inputs]
        direct = self._fused_operand(call) if call.kind == "add" else None
        for tensor in call.inputs:
            bits = self._wanted_bits(call, tensor, direct)
            if bits:
                self.edges[call.position, id(tensor)] = bits
                self.stored[self.graph.by_output[id(tensor)].position, bits] = tensor
        out = id(call.output)
        inputs = [self._seen(call, tensor) for tensor in call.inputs]
        if call.kind == "binary":
            self.state[out], self.bits[out] = "stored", call.layer.accumulator_quantizer.bits
            if call.layer.use_bias and np.any(call.layer.bias.numpy()):
                if not self.graph.decides_signs_only(call):
                    raise refusal(call.layer, "its bias moves the output off the integers", "use_bias=False")
                self.state[out] = "exact"
        elif call.kind == "concatenate":
            self.state[out], self.bits[out] = "stored", max(bits for _, bits in inputs)
        elif call.kind == "monotone":
            self.state[out], self.bits[out] = inputs[0]
        elif call.kind in ("input", "kept", "output"):
            self.state[out] = "float"
        elif call.kind == "add" or self.int8:
            self.state[out] = "exact"
        else:
            self.state[out] = "exact" if call.kind == "norm" and states[0] != "float" else "float"
        if self.state[out] == "exact" and call.kind in ("norm", "float"):
            self.fixed.add(call.position)
        self.bits.setdefault(out, 0)
        self.width[out] = self._width(call, inputs)

    def _width(self, call: Call, inputs: list[tuple[str, int]]) -> int:
        """Bits that the integers of a call's output take at most; 24 for what is float32."""
        if self.state[id(call.output)] != "exact":
            return self.bits[id(call.output)] or 24
        operands = [bits or self.width[id(tensor)] for tensor, (_, bits) in zip(call.inputs, inputs)]
        if call.kind == "norm":
            return operands[0] + fixed_point.MULTIPLIER_BITS
        if call.kind == "add":
            return max(32, *(width + 1 for width in operands))  # their fraction bits differ
        if call.kind == "mean":
            return ENDLESS  # a third has no end; where it is a power of two, nothing is lost either
        if call.kind == "float":
            products = int(np.prod(call.layer.get_weights()[0].shape[:-1]))
            return 2 * 7 + fixed_point.STEP_MANTISSA_BITS + products.bit_length()
        return operands[0]

    def _seen(self, call: Call, tensor: Tensor) -> tuple[str, int]:
        bits = self.edges.get((call.position, id(tensor)))
        return ("stored", bits) if bits else (self.state[id(tensor)], self.bits[id(tensor)])

    def _wanted_bits(self, call: Call, tensor: Tensor, direct: Tensor | None) -> int:
        """Bits in which a call wants an input stored by a layer of its own; 0 for as it is."""
        state, bits = self.state[id(tensor)], self.bits[id(tensor)]
        producer = self.graph.by_output[id(tensor)]
        if call.kind in ("binary", "kept", "output"):
            return 0
        if call.kind == "float":
            if self.int8:
                return 8 if state != "stored" or bits > 8 else 0
            return self.residual_bits if state == "exact" else 0
        if state == "stored":
            return 0
        if call.kind in ("norm", "monotone"):
            if state == "float":
                return 8 if self.int8 and call.kind == "norm" and producer.kind == "input" else 0
            if call.kind == "norm" and self.width[id(tensor)] > WIDEST:
                return self.residual_bits
            # What follows at once, element by element, is computed before anything is written to memory.
            at_once = self.graph.sees_alone(call, tensor) and (call.kind == "norm" or is_elementwise(call.layer))
            return 0 if at_once or self.graph.decides_signs_only(call) else self._stream_bits(call)
        if call.kind == "mean":
            return self._stream_bits(call) if state == "exact" else 0
        return 0 if tensor is direct else self.residual_bits

    def _stream_bits(self, call: Call) -> int:
        """8 where nothing but int8 layers is behind, as far as it is not rounded again; else the residual's."""
        behind = [call]
        while behind:
            current = behind.pop()
            if current.kind in ("add", "concatenate", "norm"):
                return self.residual_bits
            if current.kind in ("monotone", "mean"):
                behind.extend(current.consumers)
        return 8 if self.int8 else self.residual_bits

    def _fused_operand(self, call: Call) -> Tensor | None:
        """The operand that is added as it is computed, at full precision; all others come from memory.

        A batch norm's output that nothing else needs; behind a binary layer first, the last one computed.
        """
        best: tuple[tuple[bool, int], Tensor] | None = None
        for tensor in call.inputs:
            producer = self.graph.by_output[id(tensor)]
            computed = producer.kind in ("norm", "float") or is_elementwise(producer.layer)
            fits = self.state[id(tensor)] == "exact" and self.width[id(tensor)] < ENDLESS
            if not fits or not computed or not self.graph.sees_alone(call, tensor):
                continue
            source = producer
            while source.kind in ("norm", "monotone"):
                source = self.graph.by_output[id(source.inputs[0])]
            rank = (source.kind == "binary", producer.position)
            if best is None or rank > best[0]:
                best = rank, tensor
        return None if best is None else best[1]

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
            layer = self._layer(call)
            layer.set_weights(call.layer.get_weights())
            if layer.trainable != call.layer.trainable:
                layer.trainable = call.layer.trainable
            if isinstance(layer, ours.FixedPointBatchNormalization):
                by_channel = self.by_channel and self.variables == "folded"
                layer.quantize(granularity="channel" if by_channel else "layer")
            elif call.position in self.fixed and call.kind == "float":
                layer.quantize(self.format_of(call, call.inputs[0])[1])
        return result

    def _build_sequential(self, model: keras.Sequential) -> keras.Sequential:
        # Keras makes the input layer of a Sequential itself; it is not among its layers.
        stack: list[Any] = [keras.layers.InputLayer.from_config(self.graph.calls[0].layer.get_config())]
        self.replaced[id(self.graph.calls[0].layer)] = stack[0]
        for call in self.graph.calls[1:]:
            storage = self._storage(call, call.inputs[0])
            stack += [layer for layer in (storage, self._layer(call)) if layer is not None]
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
            layer = self._layer(call)
            if call.kind == "input":
                tensors[id(call.output)] = layer.output
            elif call.kind in ("add", "concatenate"):
                tensors[id(call.output)] = layer([seen_by(call, tensor) for tensor in call.inputs])
            else:
                arguments = _map((call.node.call_args, call.node.call_kwargs), lambda leaf, c=call: seen_by(c, leaf))
                tensors[id(call.output)] = layer(*arguments[0], **arguments[1])
        inputs, outputs = (_map(s, lambda leaf: tensors[id(leaf)]) for s in (model.input, model.output))
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

    def _layer(self, call: Call) -> Any:
        """The layer in the place of a call's; a layer called twice stays one."""
        original, fixed = call.layer, call.position in self.fixed
        if id(original) in self.replaced:
            first = self._first(call)
            if first is not call and (fixed and call.kind == "float" or fixed != (first.position in self.fixed)):
                raise refusal(original, "it is called more than once", "layers of their own for each place")
            return self.replaced[id(original)]
        config = _without_mixed_precision(config_of(original))
        if call.kind == "add":
            layer = ours.Add(name=original.name)
        elif call.kind == "concatenate":
            layer = ours.Concatenate(name=original.name)
        elif call.kind == "norm" and fixed:
            layer = ours.FixedPointBatchNormalization.from_config({**config, "variables": self.variables})
        elif call.kind == "float" and fixed:
            layer = self._int8_layer(original, config)
        elif call.kind in ("monotone", "mean") and self.state[id(call.output)] != "float":
            # In float32 a sum wider than that would be rounded here.
            layer = type(original).from_config({**config, "dtype": "float64"})
        else:
            layer = type(original).from_config(config)
        self.replaced[id(original)] = layer
        return layer

    def _first(self, call: Call) -> Call:
        return next(other for other in self.graph.calls if other.layer is call.layer)

    @staticmethod
    def _int8_layer(original: Any, config: dict[str, Any]) -> Any:
        if config.pop("pad_values", 0.0) != 0:
            raise refusal(original, "its pad_values are not 0", "pad_values=0")
        for name in QUANTIZERS:
            config.pop(name, None)
        return INT8[type(original)].from_config(config)

    # ---- Report -----------------------------------------------------------------------------------------------------

    def report(self, quantized: keras.Model, batches: list[Any], workers: Workers) -> list[LayerReport]:
        """Compare the outputs of all layers with those of the float model, over all data."""
        rows, floats, integers = [], [], []
        for call in self.graph.calls:
            if call.kind != "output" and self._first(call) is call:
                layer = self._layer(call)
                if call.kind != "input":
                    rows.append((layer, call.kind == "binary"))
                    floats.append([call.output, call.inputs[0]])
                    integers.append([layer.get_output_at(0), _operand(layer.get_input_at(0))])
            for bits in fixed_point.STORED_BITS:
                storage = self.storages.get((call.position, bits))
                if storage is not None:
                    rows.append((storage, False))
                    floats.append([call.output] * 2)
                    integers.append([storage.output] * 2)
        signal, noise, flips, signs = np.zeros((4, len(rows)))
        one, other = keras.Model(self.graph.model.inputs, floats), keras.Model(quantized.inputs, integers)
        for inputs in _chunks(batches):
            for i, ((y, x), (found, seen)) in enumerate(zip(_outputs(one, inputs), _outputs(other, inputs))):
                y, found = np.asarray(y, np.float64), np.asarray(found, np.float64)
                signal[i] += np.sum(y**2)
                noise[i] += np.sum((y - found) ** 2)
                flips[i] += np.count_nonzero((np.asarray(x) < 0) != (np.asarray(seen) < 0))
                signs[i] += np.size(x)
        signal, noise, flips, signs = workers.gather(np.stack([signal, noise, flips, signs])).sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            decibels = np.where(noise == 0, np.inf, 10 * np.log10(signal / noise))
        return [
            LayerReport(
                layer.name,
                type(layer).__name__,
                _describe(layer),
                float(decibels[i]),
                float(flips[i] / signs[i]) if binary else None,
            )
            for i, (layer, binary) in enumerate(rows)
        ]


def _describe(layer: Any) -> str:
    """The format of a layer in words."""
    if isinstance(layer, ours.FixedPointBatchNormalization):
        own = layer.variable_fraction_bits
        return f"int16, {_span(layer.fraction_bits)}" + ("" if own is None else f", variables {own}")
    if isinstance(layer, ours.StorageQuantizer):
        return f"int{layer.bits}, {_span(layer.fraction_bits)}"
    if getattr(layer, "kernel_steps", None):
        return f"int8, input {_span(layer.input_fraction_bits)}"
    clip = getattr(layer, "accumulator_quantizer", None)
    return "" if clip is None else f"int{clip.bits}, step {clip.step}"


def _operand(tensors: Any) -> Tensor:
    return tensors[0] if isinstance(tensors, list) else tensors


def _without_mixed_precision(config: Any) -> Any:
    """A config, and those in it, with float32 in place of mixed-precision policies, whose sums are not exact."""
    if isinstance(config, (list, tuple)):
        return [_without_mixed_precision(value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "Policy" and config.get("config", {}).get("name", "").startswith("mixed_"):
        return "float32"
    return {key: _without_mixed_precision(value) for key, value in config.items()}


def _span(fraction_bits: Any) -> str:
    low, high = int(np.min(fraction_bits)), int(np.max(fraction_bits))
    return f"fraction bits {low}" if low == high else f"fraction bits {low} to {high}"


def _map(structure: Any, function: Any) -> Any:
    if isinstance(structure, dict):
        return {key: _map(value, function) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return type(structure)(_map(value, function) for value in structure)
    return function(structure)


def _chunks(batches: list[Any]) -> Iterator[Any]:
    for batch in batches:
        size = int(np.shape(tf.nest.flatten(batch)[0])[0])
        for start in range(0, size, CHUNK):
            yield tf.nest.map_structure(lambda a, s=start: tf.convert_to_tensor(a[s : s + CHUNK]), batch)


def _outputs(model: keras.Model, inputs: Any) -> list[Any]:
    found = model(inputs, training=False)
    return list(found) if isinstance(found, (list, tuple)) else [found]


def require_clips(graph: Graph) -> None:
    """Refuse a model without binary layers; those that it has are clipped, which `Graph` has checked."""
    if not any(call.kind == "binary" for call in graph.calls):
        raise ValueError(f"model '{graph.model.name}' has no binary layer, so there is nothing clipped to quantize")


def require_statistics(graph: Graph) -> None:
    """Refuse batch norms that were never trained, and those whose variables are no numbers."""
    for call in graph.calls:
        if call.kind == "norm":
            require_statistics_of(call.layer, call.layer.name)


__all__ = ["LayerReport", "Quantization"]
