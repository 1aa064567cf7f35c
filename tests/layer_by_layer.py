"""Compares a lowered graph with its Keras model and with the C runtime, one op at a time, each on the same inputs.

A sign flips where two float32 sums differ in their last bit, and a binary network makes much of that. So every op is
given the tensors that Keras computes, not those of the ops before it, and what it gives is compared with Keras; then
the same with the tensors of the runtime.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from larq_clip.arithmetic import sign_bits
from larq_clip.converter import ir
from larq_clip.converter.ir import DType


class Differences(NamedTuple):
    """Of the tensors that a graph and a Keras model share.

    Attributes:
        bits: how many tensors of bits there are, and integers of binary convolutions.
        flipped: how many of their elements differ, and of how many.
        elements: of all tensors of bits.
        floats: how many tensors of float32.
        largest: the largest difference of one of those, in parts of the tensor's largest magnitude.
    """

    bits: int
    flipped: int
    elements: int
    floats: int
    largest: float


def keras_tensors(model: Any, x: NDArray) -> dict[str, NDArray]:
    """What every layer gives, by the name of the tensor in the graph; and what binary layers see, as bits."""
    from larq_clip._keras import keras, tf

    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    outputs = keras.Model(model.inputs, [layer.output for layer in layers])(x, training=False)
    found: dict[str, NDArray] = {model.input.name: x}
    for layer, output in zip(layers, outputs):
        arrays = [np.asarray(array) for array in tf.nest.flatten(output)]
        names = [layer.name] if len(arrays) == 1 else [f"{layer.name}:{part}" for part in range(len(arrays))]
        found.update(zip(names, arrays))
    produced = {id(layer.output): layer.name for layer in layers}
    produced[id(model.input)] = model.input.name
    for layer in layers:
        quantizer = getattr(layer, "input_quantizer", None)
        if quantizer is None:
            continue
        seen = np.asarray(quantizer(tf.constant(found[produced[id(layer.input)]])))
        if np.all(np.abs(seen) == 1):
            found[f"{layer.name}:input"] = sign_bits(seen)
        else:  # levels of DoReFa with 2 bits
            level = np.rint(seen * 3).astype(int)
            found.update({f"{layer.name}:input:{j}": (1 - (level >> j & 1)).astype(np.uint8) for j in range(2)})
    return found


def against_keras(graph: ir.Graph, expected: dict[str, NDArray]) -> Differences:
    """Every op on what Keras computes; tensors that Keras does not have are those of the op before."""
    arrays: dict[str, NDArray] = {name: expected[name] for name in graph.inputs}
    bits = flipped = elements = floats = 0
    largest = 0.0
    for op in graph.ops:
        written = op.evaluate([arrays[name] for name in op.inputs], graph.sources(op), graph.results(op))
        for name, array in zip(op.outputs, written):
            arrays[name] = array
            if name not in expected:
                continue
            if graph.tensors[name].dtype is DType.BIT:
                wanted = expected[name].reshape(array.shape)
                bits, elements, flipped = bits + 1, elements + array.size, flipped + np.count_nonzero(wanted != array)
            else:
                wanted = expected[name].reshape(array.shape)
                floats += 1
                largest = max(largest, float(np.abs(array - wanted).max() / max(np.abs(wanted).max(), 1e-30)))
            arrays[name] = wanted
    return Differences(bits, flipped, elements, floats, largest)


def against_runtime(graph: ir.Graph, runtime: dict[str, NDArray]) -> None:
    """Every op on what the runtime computes, bit for bit; functions that both approximate within one part in 10^6."""
    arrays = {
        name: (array < 0).astype(np.uint8) if graph.tensors[name].dtype is DType.BIT else array
        for name, array in runtime.items()
    }
    for op in graph.ops:
        written = op.evaluate([arrays[name] for name in op.inputs], graph.sources(op), graph.results(op))
        for name, array in zip(op.outputs, written):
            if isinstance(op, (ir.Softmax, ir.Function)):
                np.testing.assert_allclose(arrays[name], array, rtol=1e-6, atol=1e-7, err_msg=name)
            else:
                np.testing.assert_array_equal(arrays[name], array, err_msg=f"{op.name}: {name}")
