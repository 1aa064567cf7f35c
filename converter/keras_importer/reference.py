"""What Keras computes for a tensor of a file, from tensors that the device computed.

The graph of a model, models inside of it included, is executed call by call, as far up as to the given tensors. So a
layer sees what the device's layer saw: where the sum of a float layer in front is rounded differently, and a sign near
zero with it, the layers behind are compared all the same.

A given tensor is a layer's output, its quantized input, ``X:input``, or its clipped accumulator, ``X:clipped``. A
quantizer leaves what is quantized as is, so the layer is called on that. Several layers may read the sign of one
tensor, and a file keeps it once; therefore the quantized input of one layer serves all that quantize the same tensor in
the same way, also behind layers that move elements or add zeros.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larq_clip._binary import PROBES, produces_signs
from larq_clip._keras import keras, lq, tf
from larq_clip._scope import quantized_scope
from larq_clip.converter import ir
from larq_clip.converter.keras_importer import import_model
from larq_clip.converter.keras_importer.exact_sums import KERNELS, ExactSums, can_sum_exactly
from larq_clip.converter.rounding import sum_error
from larq_clip.quantizers import AccumulatorClip

Key = tuple[str, int]  # the model's place inside of others, and the id of one of its tensors
MOVES = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
)


class NotGivenError(LookupError):
    """A tensor of Keras that depends on more than what is given."""


@dataclass(eq=False)
class Call:
    """One call of one layer.

    Attributes:
        name: the layer's, as the importer names it.
        node: Keras's.
        sources: where each tensor comes from that the call reads, by the tensor's id.
        results: the tensors that it returns.
        kind: how it quantizes its input, equal for calls that do it alike; None where it does not.
        exact: what computes the call instead of the layer, whose sum would round.
    """

    name: str
    node: Any
    sources: dict[int, Key]
    results: list[Key]
    quantizer: Any = None
    kind: str | None = None
    exact: ExactSums | None = None

    @property
    def layer(self) -> Any:
        return self.node.layer


@dataclass
class _Network:
    """A model without models inside: calls in order, and what its tensors are."""

    calls: list[Call] = field(default_factory=list)
    tensors: dict[Key, Any] = field(default_factory=dict)
    same: dict[Key, Key] = field(default_factory=dict)  # tensors of inner models that are tensors of outer ones
    held: list[Any] = field(default_factory=list)  # so that no id is used twice

    def resolve(self, key: Key) -> Key:
        while key in self.same:
            key = self.same[key]
        return key


class KerasReference:
    """A model as the reference of a file.

    Attributes:
        graph: the model as it is imported.
        layers: names of all calls.
        sums: of layers that the graph computes in integers and Keras with rounding, the tensor in front of the
            activation, and how far Keras may be off; see `larq_clip.converter.rounding`.
        exact: names of the calls whose sums are rounded once, to float32.

    Raises:
        larq_clip.ConversionError: where the model cannot be converted.
    """

    def __init__(self, model: Any):
        self.model = model
        self.graph: ir.Graph = import_model(model)
        self._network = _Network()
        _add_calls(self._network, model, "")
        self._producers = {key: call for call in self._network.calls for key in call.results}
        self._outputs: dict[str, Key] = {t.name: ("", id(t)) for t in model.inputs}
        self._quantized: dict[str, Call] = {}
        self._clipped: dict[str, Call] = {}
        for call in self._network.calls:
            self._outputs.setdefault(call.name, call.results[0])
            if call.quantizer is not None and call.quantizer is not call.layer and len(call.sources) == 1:
                self._quantized[f"{call.name}:input"] = call
            if isinstance(getattr(call.layer, "accumulator_quantizer", None), AccumulatorClip):
                self._clipped[f"{call.name}:clipped"] = call
        self.layers = frozenset(call.name for call in self._network.calls)
        self.sums: dict[str, float] = {}
        self._sum_exactly()
        self.exact = frozenset(call.name for call in self._network.calls if call.exact is not None)

    def _sum_exactly(self) -> None:
        """Call the twins of layers whose sums would round, and find how far off sums of levels and scales are."""
        binary = {op.name for op in self.graph.ops if isinstance(op, ir.BinaryConv2D)}
        twins: dict[int, ExactSums] = {}
        for call in self._network.calls:
            integers = call.name in binary
            if integers and getattr(call.layer, "has_scale", False):
                continue
            rounds = not integers or _rounded_sum(call, once=False) > 0
            if rounds and can_sum_exactly(call.layer):
                if id(call.layer) not in twins:
                    twins[id(call.layer)] = ExactSums(call.layer)
                call.exact = twins[id(call.layer)]
            if integers:
                linear = f"{call.name}:linear"
                error = _rounded_sum(call, once=call.exact is not None)
                self.sums[linear if linear in self.graph.tensors else call.name] = error

    def shape(self, name: str, bits: bool) -> tuple[int, ...] | None:
        """Shape without the batch of what Keras computes under the name of a tensor.

        None where it computes no such tensor by itself, or not as signs, where `bits` says that it is of bits.
        """
        if name in self._quantized:
            call = self._quantized[name]
            if bits and call.kind != "sign":
                return None
            (key,) = call.sources.values()
        elif name in self._clipped:
            key = self._clipped[name].results[0]
        elif name in self._outputs:
            key = self._outputs[name]
        else:
            return None
        return tuple(self._network.tensors[self._network.resolve(key)].shape[1:])

    def compute(self, name: str, given: Mapping[str, NDArray]) -> NDArray:
        """A tensor that `shape` knows, ``(batch, ...)``, from others, given as the numbers that they stand for.

        Raises:
            NotGivenError: where Keras needs more than what is given.
        """
        with quantized_scope(), tf.device("/CPU:0"):  # others may round products to fewer bits
            run = _Run(self._network, self._producers)
            for other, numbers in given.items():
                if other in self._quantized:
                    run.give_quantized(self._quantized[other], numbers)
                elif other in self._clipped:
                    run.give_clipped(self._clipped[other], numbers)
                else:
                    key = self._outputs[other]
                    run.give(key, numbers, self._producers.get(self._network.resolve(key)))
            if name in self._quantized:
                call = self._quantized[name]
                (key,) = call.sources.values()
                return np.asarray(call.quantizer(run.quantized(call, key)))
            if name in self._clipped:
                return np.asarray(run.clipped(self._clipped[name]))
            return np.asarray(run.value(self._outputs[name]))

    def outputs(self, inputs: list[NDArray]) -> list[NDArray]:
        """The model's outputs, executed layer by layer on the model's own tensors."""
        with quantized_scope(), tf.device("/CPU:0"):
            found = self.model(inputs if len(inputs) > 1 else inputs[0], training=False)
        return [np.asarray(array) for array in (found if isinstance(found, (list, tuple)) else [found])]


def _add_calls(network: _Network, model: Any, prefix: str) -> None:
    network.held.append(model)
    count: dict[str, int] = {}
    for tensor in model.inputs:
        network.tensors[prefix, id(tensor)] = tensor
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            layer = node.layer
            number = count[layer.name] = count.get(layer.name, 0) + 1
            name = prefix + (layer.name if number == 1 else f"{layer.name}#{number}")
            results = tf.nest.flatten(node.outputs)
            network.tensors.update(((prefix, id(t)), t) for t in results)
            if isinstance(layer, keras.Model):
                _add_model(network, node, name, prefix, results)
                continue
            sources = {id(t): (prefix, id(t)) for t in _read_by(node)}
            quantizer = _quantizer(layer)
            call = Call(name, node, sources, [(prefix, id(t)) for t in results], quantizer, _kind(quantizer))
            network.calls.append(call)


def _add_model(network: _Network, node: Any, name: str, prefix: str, results: list[Any]) -> None:
    inner = node.layer
    given = _read_by(node) if not node.call_args else inner._flatten_to_reference_inputs(node.call_args[0])
    network.same.update(((f"{name}/", id(i)), (prefix, id(t))) for i, t in zip(inner.inputs, given))
    network.same.update(((prefix, id(t)), (f"{name}/", id(o))) for t, o in zip(results, inner.outputs))
    _add_calls(network, inner, f"{name}/")


ROUNDED_FACTORS = 3  # of a term: the level m / n, the scale s, and in the graph s / n


def _rounded_sum(call: Call, once: bool) -> float:
    """How far the sum of a layer with quantizers may be from the exact one, which the graph scales and rounds once.

    0 where the terms are integers, and, where `once` says that the sum too is rounded once, integers times one scale.
    """
    inputs = np.ones(1) if call.quantizer is None else np.abs(np.asarray(call.quantizer(tf.constant(_probes()))))
    terms, magnitudes, exact = 1, float(inputs.max()), bool(np.all(inputs == np.round(inputs)))
    with quantized_scope(True):
        kernels = [np.abs(np.asarray(tf.convert_to_tensor(getattr(call.layer, name)))) for name in _kernels(call.layer)]
    for kernel in kernels:
        # Output channels are the last axis, of transposed convolutions the one before.
        sums = [np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1).sum(axis=1).max() for axis in (-1, -2)]
        terms, magnitudes = terms * kernel.size // min(kernel.shape[-2:]), magnitudes * float(max(sums))
    # A pointwise kernel behind the first is one of a float layer in the graph.
    filters = 2 if hasattr(call.layer, "depthwise_kernel") else 1
    exact = exact and all(
        _is_scaled(kernel, filters, power_of_two=not once) for kernel in kernels[: 1 if once else None]
    )
    return 0.0 if exact else sum_error(ROUNDED_FACTORS + 1 if once else terms, magnitudes)


def _is_scaled(magnitudes: NDArray, filters: int, power_of_two: bool) -> bool:
    """Whether every filter, over all but the last axes, is 0 and one scale; or the kernel one power of two."""
    scale = magnitudes.max(axis=tuple(range(magnitudes.ndim - filters)))
    if power_of_two and not (np.all(scale == scale.max()) and np.frexp(scale.max())[0] in (0, 0.5)):
        return False
    return bool(np.all((magnitudes == scale) | (magnitudes == 0)))


def _kernels(layer: Any) -> list[str]:
    return [name for name in KERNELS if hasattr(layer, name)]


def _read_by(node: Any) -> list[Any]:
    tensors = node.keras_inputs
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


def _quantizer(layer: Any) -> Any:
    """What the layer does to its input before anything else, if it quantizes it; a quantizer layer does itself."""
    if isinstance(layer, lq.quantizers.NoOp):
        return None
    if isinstance(layer, lq.quantizers.Quantizer):
        return layer
    if type(layer) is keras.layers.Activation and produces_signs(layer.activation, [_probes()]):
        return layer
    quantizer = getattr(layer, "input_quantizer", None)
    return None if isinstance(quantizer, lq.quantizers.NoOp) else quantizer


def _kind(quantizer: Any) -> str | None:
    if quantizer is None:
        return None
    if produces_signs(quantizer, [_probes()]):
        return "sign"
    return f"{type(quantizer).__name__} {quantizer.get_config() if hasattr(quantizer, 'get_config') else id(quantizer)}"


def _probes() -> NDArray[np.float32]:
    return PROBES.reshape(1, -1)


@contextlib.contextmanager
def _clip_of(layer: Any, accumulator: Any = None) -> Iterator[list[Any]]:
    """Within it, calls of a clipped layer append its clipped accumulator to the list; it is the one given, if any."""
    found: list[Any] = []
    clip = layer._quantize_accumulator

    def noted(computed: Any) -> Any:
        found.append(clip(computed) if accumulator is None else accumulator)
        return found[-1]

    vars(layer)["_quantize_accumulator"] = noted  # past Keras, which would track it
    try:
        yield found
    finally:
        del vars(layer)["_quantize_accumulator"]


class _Run:
    """One execution: what is given, and what has been computed from it."""

    def __init__(self, network: _Network, producers: Mapping[Key, Call]):
        self._network, self._producers = network, producers
        self._values: dict[Key, Any] = {}
        self._signs: dict[tuple[Key, str | None], Any] = {}
        self._inputs: dict[str, Any] = {}
        self._accumulators: dict[str, Any] = {}

    def give(self, key: Key, numbers: NDArray, producer: Call | None) -> None:
        key = self._network.resolve(key)
        self._values[key] = self._as_tensor(key, numbers)
        if producer is not None and producer.quantizer is producer.layer:
            (source,) = producer.sources.values()
            self._signs[self._network.resolve(source), producer.kind] = self._as_tensor(source, numbers)

    def give_quantized(self, call: Call, numbers: NDArray) -> None:
        (source,) = call.sources.values()
        tensor = self._as_tensor(source, numbers)
        self._inputs[call.name] = tensor
        self._signs[self._network.resolve(source), call.kind] = tensor

    def give_clipped(self, call: Call, numbers: NDArray) -> None:
        self._accumulators[call.name] = self._as_tensor(call.results[0], numbers)

    def clipped(self, call: Call) -> Any:
        """The clipped accumulator of a call, before its scale, bias and activation."""
        with _clip_of(call.layer) as found:
            self._execute(call, {number: self._operand(call, t) for number, t in call.sources.items()})
        return found[0]

    def _as_tensor(self, key: Key, numbers: NDArray) -> Any:
        like = self._network.tensors[self._network.resolve(key)]
        return tf.constant(numbers.reshape(-1, *like.shape[1:]).astype(like.dtype.as_numpy_dtype))

    def value(self, key: Key) -> Any:
        """A tensor of Keras."""
        key = self._network.resolve(key)
        if key not in self._values:
            call = self._producers.get(key)
            if call is None:
                raise NotGivenError(f"Keras needs the model's input {self._network.tensors[key].name!r}")
            results = self._results(call)
            for result, tensor in zip(call.results, results):
                self._values.setdefault(result, tensor)
        return self._values[key]

    def _results(self, call: Call) -> list[Any]:
        if call.name not in self._accumulators:
            return self._execute(call, {number: self._operand(call, t) for number, t in call.sources.items()})
        accumulator = self._accumulators[call.name]
        shapes = {n: self._network.tensors[self._network.resolve(t)].shape[1:] for n, t in call.sources.items()}
        with _clip_of(call.layer, accumulator):
            return self._execute(call, {n: tf.zeros((len(accumulator), *shape)) for n, shape in shapes.items()})

    def _operand(self, call: Call, key: Key) -> Any:
        return self.value(key) if call.quantizer is None else self.quantized(call, key)

    def quantized(self, call: Call, key: Key) -> Any:
        """A tensor that the quantizer of a call takes to what the call's input is quantized to."""
        if call.name in self._inputs:
            return self._inputs[call.name]
        found = self._quantized_alike(self._network.resolve(key), call.kind)
        return self.value(key) if found is None else found

    def _quantized_alike(self, key: Key, kind: str | None) -> Any:
        if (key, kind) in self._signs:
            return self._signs[key, kind]
        if key in self._values:
            return self._values[key]
        call = self._producers.get(key)
        if call is None or not isinstance(call.layer, MOVES) or len(call.sources) != 1:
            return None
        ((number, source),) = call.sources.items()
        found = self._quantized_alike(self._network.resolve(source), kind)
        return None if found is None else self._execute(call, {number: found})[0]

    @staticmethod
    def _execute(call: Call, operands: Mapping[int, Any]) -> list[Any]:
        if call.exact is not None:
            (operand,) = operands.values()
            return [call.exact(operand)]
        # A call may read one tensor several times, and each time one is taken from the list.
        table = {str(number): [tensor] * len(call.node.flat_input_ids) for number, tensor in operands.items()}
        args, kwargs = call.node.map_arguments(table)
        if getattr(call.layer, "_expects_training_arg", False):
            kwargs["training"] = False
        return tf.nest.flatten(call.layer(*args, **kwargs))
