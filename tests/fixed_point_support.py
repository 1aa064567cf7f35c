"""Small quantized models of every style, and the check that a converted one computes what Keras computes, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from converter_support import dyadic

from larq_clip.converter import ir, pipeline, reader, writer
from larq_clip.converter.ir import DType
from larq_clip.converter.rounding import reals

SHAPE = (8, 8, 3)


def check_on_runtime(data: bytes, x: np.ndarray, expected: dict[str, np.ndarray]) -> None:
    """Every tensor that the C runtime computes equals the reference's, bit for bit, on each instruction set; results of
    `Function` to 1 unit of the last place of either."""
    from larq_clip.interpreter import Interpreter, available_isas

    graph = reader.read(data)
    for isa in available_isas():
        found = Interpreter(data, keep_tensors=True, isa=isa).tensors(x)
        assert set(found) == set(expected)
        for name, array in expected.items():
            array = 1 - 2 * array.astype(np.int8) if graph.tensors[name].dtype is DType.BIT else array
            if isinstance(graph.producer(name), ir.Function):
                np.testing.assert_allclose(found[name], array, rtol=2**-22, err_msg=f"{name} on {isa}")
            else:
                np.testing.assert_array_equal(found[name], array, err_msg=f"{name} on {isa}")


def check_the_same_to_the_device(graph: ir.Graph) -> ir.Graph:
    """A graph lowered, written, read and run on the C runtime: every tensor stays the same. Returns it lowered."""
    lowered = pipeline.lower(graph)
    data = writer.write(lowered)
    x = dyadic(np.random.default_rng(3), (2, *graph.tensors["x"].shape))
    expected = ir.evaluate(lowered, {"x": x})
    for name, array in ir.evaluate(reader.read(data), {"x": x}).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    check_on_runtime(data, x, expected)
    return lowered


# ---- Models ---------------------------------------------------------------------------------------------------------


def _binary(filters: int, name: str, **arguments: Any):
    from larq_clip._keras import lq

    arguments = {"kernel_size": 3, "padding": "same", "use_bias": False, **arguments}
    return lq.layers.QuantConv2D(
        filters, name=name, input_quantizer="ste_sign", kernel_quantizer="ste_sign", **arguments
    )


def vgg():
    """Clip, pool and batch norm before each sign; one norm behind the flattening; a bias of zeros."""
    from larq_clip._keras import keras, lq

    layers = keras.layers
    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    return keras.Sequential(
        [
            layers.InputLayer(SHAPE, name="image"),
            layers.Conv2D(8, 3, name="stem"),
            layers.BatchNormalization(name="stem_norm"),
            _binary(12, "conv", pad_values=1.0, use_bias=True),
            layers.MaxPooling2D(2, name="pool"),
            layers.BatchNormalization(name="norm"),
            _binary(10, "conv_2"),
            layers.BatchNormalization(name="norm_2"),
            layers.MaxPooling2D(2, strides=1, name="pool_2"),
            layers.Flatten(name="flatten"),
            lq.layers.QuantDense(16, use_bias=False, name="dense", **signs),
            layers.BatchNormalization(name="dense_norm"),
            layers.Dropout(0.3, name="dropout"),
            layers.Dense(5, name="classifier"),
        ],
        name="vgg",
    )


def resnet():
    """Sums of binary blocks and shortcuts, one through a mean pool and a 1x1 convolution; a relu in a binary layer."""
    from larq_clip._keras import keras

    layers = keras.layers
    image = keras.Input(SHAPE, name="image")
    x = layers.BatchNormalization(name="stem_norm")(layers.Conv2D(8, 3, padding="same", name="stem")(image))
    for block, (filters, strides) in enumerate([(8, 1), (12, 2), (12, 1)]):
        shortcut = x
        if strides == 2:
            shortcut = layers.AveragePooling2D(2, name="shortcut_pool")(shortcut)
            shortcut = layers.Conv2D(filters, 1, use_bias=False, name="shortcut_conv")(shortcut)
            shortcut = layers.BatchNormalization(name="shortcut_norm")(shortcut)
        y = _binary(filters, f"conv_{block}", strides=strides, activation="relu" if block == 2 else None)(x)
        y = layers.BatchNormalization(name=f"norm_{block}")(y)
        x = y + shortcut if block == 0 else layers.Add(name=f"add_{block}")([shortcut, y])
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Activation("relu", name="relu")(x))
    return keras.Model(image, layers.Dense(5, name="classifier")(x), name="resnet")


def densenet():
    """Concatenations whose norms feed signs only; a transition of pool, depthwise and 1x1 convolution."""
    from larq_clip._keras import keras

    layers = keras.layers
    image = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(x))
    for block in range(3):
        y = _binary(8, f"conv_{block}")(layers.BatchNormalization(name=f"norm_{block}")(x))
        x = layers.Concatenate(name=f"join_{block}")([x, y])
        if block == 0:
            x = layers.MaxPooling2D(2, strides=1, name="pool")(layers.BatchNormalization(name="transition_norm")(x))
            x = layers.Conv2D(8, 1, use_bias=False, name="transition")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="last_norm")(x))
    x = layers.Dense(5, name="classifier")(layers.Flatten(name="flat")(layers.MaxPooling2D(2, name="last_pool")(x)))
    return keras.Model(image, x, name="densenet")


def quicknet():
    """A stem with zero padding, depthwise convolution, relu in front of norms; residual blocks conv, relu, norm, add;
    a transition of max pool, depthwise blur and 1x1 convolution; a sign behind zeros."""
    from larq_clip._keras import keras

    layers = keras.layers
    image = keras.Input(SHAPE, name="image")
    x = layers.ZeroPadding2D(1, name="stem_pad")(image)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="stem_norm")(layers.Activation("relu", name="stem_relu")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="stem_depthwise")(x)
    x = layers.BatchNormalization(name="stem_norm_2")(x)
    for block in range(2):
        y = _binary(8, f"conv_{block}", activation="relu", pad_values=1.0)(x)
        x = layers.Add(name=f"add_{block}")([x, layers.BatchNormalization(name=f"norm_{block}")(y)])
    x = layers.MaxPooling2D(2, strides=1, name="pool")(layers.Activation("relu", name="relu")(x))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False, name="blur")(x)
    x = layers.BatchNormalization(name="transition_norm")(layers.Conv2D(12, 1, name="transition")(x))
    y = _binary(12, "conv_2", padding="valid", pad_values=0.0)(layers.ZeroPadding2D(1, name="pad")(x))
    x = layers.Add(name="add_2")([layers.BatchNormalization(name="norm_2")(y), x])
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Activation("relu", name="last_relu")(x))
    return keras.Model(image, layers.Dense(5, name="classifier")(x), name="quicknet")


MODELS = {make.__name__: make for make in (vgg, resnet, densenet, quicknet)}


def images(count: int = 6, seed: int = 0) -> np.ndarray:
    """Multiples of 1/64, normally distributed: float32 sums of their products with 8-bit weights are exact."""
    found = np.random.default_rng(seed).normal(size=(count, *SHAPE))
    return (np.round(64 * found) / 64).astype(np.float32)


def quantized(make: Callable[[], Any], seed: int = 0, step: Any = "auto", **arguments: Any):
    """A quantized model as if trained: norms that fit their inputs, gamma of both signs and 0, beta and bias alive."""
    from larq_clip._keras import keras
    from larq_clip.models import clip_model, quantize_model

    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model, data = make(), images(24, seed + 1)
    for layer in model.layers:
        if arguments.get("float_layers") == "float32" and not hasattr(layer, "input_quantizer"):
            layer.set_weights([np.round(64 * weight) / 64 for weight in layer.get_weights()])  # exact sums
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        elif getattr(layer, "use_bias", False) and not hasattr(layer, "input_quantizer"):
            layer.bias.assign(rng.normal(0, 0.2, layer.bias.shape))
    model(data, training=True)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, *rest = layer.get_weights()
            gamma = rng.uniform(0.5, 1.5, gamma.shape) * rng.choice([-1, 1], gamma.shape)
            gamma[rng.random(gamma.shape) < 0.05] = 0
            layer.set_weights([gamma, rng.normal(0, 0.3, beta.shape), *rest])
    calibration = {"calibration_data": data} if step == "auto" else {}
    return quantize_model(clip_model(model, step=step, **calibration), data, **arguments)


# ---- The check ------------------------------------------------------------------------------------------------------


def keras_outputs(model, x: np.ndarray) -> dict[str, np.ndarray]:
    """The output of every layer that is called once, by its name."""
    from larq_clip._keras import keras

    layers = [layer for layer in model.layers if len(layer._inbound_nodes) == 1]
    found = keras.Model(model.inputs, [layer.output for layer in layers])(x, training=False)
    return {layer.name: np.asarray(array) for layer, array in zip(layers, found, strict=True)}


def check(model, x: np.ndarray) -> ir.Graph:
    """Import, lower, write, read and execute a model of integers; every tensor equals the Keras layer's, exactly.

    Returns the lowered graph.
    """
    from larq_clip.converter import keras_importer

    expected = keras_outputs(model, x)
    graph = keras_importer.import_model(model)
    imported = ir.evaluate(graph, {graph.inputs[0]: x})
    compared = [name for name in graph.tensors if name in expected and name not in graph.inputs]
    for name in compared:
        np.testing.assert_array_equal(reals(imported[name], graph.tensors[name]), expected[name], err_msg=name)
    assert len(compared) > len(expected) // 2

    outputs = model(x, training=False)
    outputs = [np.asarray(y).astype(np.float32) for y in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]
    lowered = pipeline.lower(graph)
    arrays = ir.evaluate(lowered, {lowered.inputs[0]: x})
    integers = [n for n, t in lowered.tensors.items() if t.dtype is not DType.FLOAT32 and n in imported]
    assert integers
    for name in integers:
        np.testing.assert_array_equal(arrays[name].ravel(), imported[name].ravel(), err_msg=name)
    for name, y in zip(lowered.outputs, outputs, strict=True):
        assert arrays[name].dtype == np.float32
        np.testing.assert_array_equal(arrays[name], y, err_msg=name)

    data = writer.write(lowered)
    again = reader.read(data)
    for name, array in ir.evaluate(again, {again.inputs[0]: x}).items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    check_on_runtime(data, x, arrays)
    return lowered
