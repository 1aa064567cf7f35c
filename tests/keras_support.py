"""Small Keras models with random weights, and the comparison of the C runtime with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from larq_clip.converter import ir, keras_importer, pipeline, writer
from larq_clip.converter.ir import DType

BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
# Sums of a few hundred float32 products below 10, in another order: 2^-24 each, and some left for what follows.
FLOAT_TOLERANCE = 1e-4


def sequential(shape: tuple[int, ...], *layers: Any) -> Any:
    from larq_clip._keras import keras

    return keras.Sequential([keras.Input(shape), *layers])


def functional(shape: tuple[int, ...], build: Any) -> Any:
    from larq_clip._keras import keras

    x = keras.Input(shape)
    return keras.Model(x, build(x))


def randomize(model: Any, seed: int = 0) -> None:
    """Random weights: kernels around 0, batch norms with scales of both signs."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        kind = variable.name.split("/")[-1].split(":")[0]
        values = rng.normal(size=variable.shape)
        if kind == "gamma":
            values = rng.choice([-1, 1], variable.shape) * rng.uniform(0.3, 1.5, variable.shape)
        elif kind == "moving_variance":
            values = rng.uniform(0.5, 2, variable.shape)
        variable.assign(values.astype(np.float32))


def images(model: Any, count: int = 3, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(count, *t.shape[1:])).astype(np.float32) for t in model.inputs]


def convert(model: Any, x: list[np.ndarray]) -> tuple[ir.Graph, list[np.ndarray]]:
    """The lowered graph of a model, and the outputs of its file on the C runtime.

    The runtime's tensors equal those of the NumPy evaluators, bit for bit save behind functions that both approximate.
    """
    from larq_clip.interpreter import Interpreter

    graph = pipeline.lower(keras_importer.import_model(model))
    runtime = Interpreter(writer.write(graph), keep_tensors=True)
    arrays = ir.evaluate(graph, dict(zip(graph.inputs, x, strict=True)))
    given = x if len(x) > 1 else x[0]
    found = runtime.tensors(given)
    approximate = any(isinstance(op, (ir.Softmax, ir.Function)) for op in graph.ops)
    for name, array in arrays.items():
        tensor, actual = graph.tensors[name], found[name]
        array = ir.values(array, tensor) if tensor.dtype is DType.BIT else array
        if tensor.dtype is DType.FLOAT32 and approximate:
            np.testing.assert_allclose(actual, array, rtol=0, atol=FLOAT_TOLERANCE, err_msg=name)
        else:
            np.testing.assert_array_equal(actual, array, err_msg=name)
    return graph, [ir.values(arrays[name], graph.tensors[name]) for name in graph.outputs]


def check(model: Any, *, exact: bool, count: int = 3) -> ir.Graph:
    """Convert a model with random weights and compare its outputs with Keras: equal, or float32 within a tolerance."""
    from larq_clip._keras import tf

    randomize(model)
    x = images(model, count)
    expected = [np.asarray(y) for y in tf.nest.flatten(model(x if len(x) > 1 else x[0], training=False))]
    graph, outputs = convert(model, x)
    for actual, wanted in zip(outputs, expected, strict=True):
        assert actual.shape == wanted.shape and np.ptp(wanted) > 0
        if exact:
            np.testing.assert_array_equal(actual, wanted)
        else:
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=FLOAT_TOLERANCE * max(1, np.abs(wanted).max()))
    return graph


def assert_outputs_and_gradients_of(model: Any, other: Any, x: np.ndarray, products: int = 72) -> None:
    """Outputs and all gradients of both, where none is 0, are sums of at most as many float32 products of the same
    magnitude, perhaps in another order."""
    from larq_clip._keras import tf

    def outputs_and_gradients(of: Any) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            images = tf.constant(x)
            tape.watch(images)
            y = of(images)
            loss = tf.reduce_sum(y * tf.constant(np.random.default_rng(7).normal(size=y.shape), tf.float32))
        return [y, *tape.gradient(loss, [images, *of.trainable_variables])]

    for found, expected in zip(outputs_and_gradients(other), outputs_and_gradients(model), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=products * 2**-24 * max(scale, 1) * 4)
        assert scale > 0
