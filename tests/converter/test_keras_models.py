"""Whole Keras models: the imported graph against the layers, the lowered graph against the imported one.

First layers and classifiers have 8-bit weights and dyadic inputs, so their sums are exact in any order; then every
tensor of signs and integers must be equal, and only the outputs' last float operations round differently.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from converter_support import dyadic, ops_of

from larq_clip.arithmetic import sign_bits
from larq_clip.converter import ir, pipeline, reader, writer
from larq_clip.converter.ir import DType

# A softmax of logits that were rounded in a different order, each within 1e-5 of its magnitude (below 30).
OUTPUT_ATOL = 1e-4


@pytest.fixture(scope="module")
def keras():
    from larq_clip._keras import keras

    return keras


def binary(**arguments):
    return {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False, **arguments}


def clip(step):
    from larq_clip.quantizers import AccumulatorClip

    return {} if step is None else {"accumulator_quantizer": AccumulatorClip(step=step)}


def randomize(model, seed: int = 0) -> None:
    """Random weights, and batch norms whose statistics are those of what they read, gamma of both signs and 0."""
    from larq_clip._keras import keras

    rng = np.random.default_rng(seed)
    x = dyadic(rng, (8, *model.input_shape[1:]))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            seen = keras.Model(model.inputs, layer.input).predict(x, verbose=0)
            axes = tuple(range(seen.ndim - 1))
            channels = seen.shape[-1]
            mean = np.round(seen.mean(axes) + 0.5 * seen.std(axes) * rng.standard_normal(channels))  # often a tie
            gamma = rng.uniform(0.2, 2, channels) * rng.choice([-1, 1], channels) * (rng.random(channels) > 0.1)
            beta = rng.standard_normal(channels) * rng.choice([0, 0.3], channels)
            layer.set_weights([gamma] * layer.scale + [beta] * layer.center + [mean, seen.var(axes) + 0.1])
        elif layer.weights:
            layer.set_weights([rng.uniform(-1, 1, w.shape) for w in layer.weights])


def check(model, seed: int = 5, count: int = 6) -> ir.Graph:
    """Import, lower, write and read a model; compare at every stage. Returns the lowered graph."""
    from larq_clip._keras import keras
    from larq_clip.converter import keras_importer

    x = dyadic(np.random.default_rng(seed), (count, *model.input_shape[1:]))
    graph = keras_importer.import_model(model)
    imported = ir.evaluate(graph, {graph.inputs[0]: x})
    outputs = model.predict(x, verbose=0)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    for name, expected in zip(graph.outputs, outputs):
        actual = ir.values(imported[name], graph.tensors[name])
        np.testing.assert_allclose(actual, expected, rtol=0, atol=OUTPUT_ATOL * max(1, np.abs(expected).max()))
    compare_with_layers(keras, model, graph, imported, x)

    lowered = pipeline.lower(graph)
    arrays = ir.evaluate(lowered, {lowered.inputs[0]: x})
    exact = 0
    for name, tensor in lowered.tensors.items():
        if name not in imported or tensor.dtype is DType.FLOAT32:
            continue
        np.testing.assert_array_equal(arrays[name].ravel(), imported[name].ravel(), err_msg=name)
        exact += 1
    assert exact, "the model has no integer tensors to compare"
    for name, expected in zip(lowered.outputs, outputs):
        np.testing.assert_allclose(arrays[name], expected, rtol=0, atol=OUTPUT_ATOL * max(1, np.abs(expected).max()))

    again = reader.read(writer.write(lowered))
    for name, array in ir.evaluate(again, {again.inputs[0]: x}).items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    return lowered


def compare_with_layers(keras, model, graph, imported, x) -> None:
    """Signs, accumulators and clipped accumulators of the graph equal what the Keras layers hand on, exactly."""
    layers = {layer.name: layer for layer in model.layers}
    wanted = [name for name in graph.tensors if name in layers and name not in model.input_names]
    seen = keras.Model(model.inputs, [layers[name].output for name in wanted])(x, training=False)
    by_name = {name: np.asarray(array) for name, array in zip(wanted, seen if len(wanted) > 1 else [seen], strict=True)}
    for name, array in by_name.items():
        if graph.tensors[name].dtype is not DType.FLOAT32:
            np.testing.assert_array_equal(ir.values(imported[name], graph.tensors[name]), array, err_msg=name)
    for op in ops_of(graph, ir.Bitpack):
        if op.input in by_name:
            np.testing.assert_array_equal(imported[op.output], sign_bits(by_name[op.input]), err_msg=op.output)


def vgg(keras, step, pool, pad_values, norm, bias=False, filters=(20, 70, 64)):
    from larq_clip.layers import QuantConv2D, QuantDense
    from larq_clip.quantizers import FixedPoint

    def block(n):
        conv = QuantConv2D(n, 3, padding="same", pad_values=pad_values, **binary(use_bias=bias), **clip(step))
        tail = [keras.layers.MaxPooling2D(), keras.layers.BatchNormalization(**norm)]
        return [conv, *(tail if pool == "before" else tail[::-1])]

    exact = {"kernel_quantizer": FixedPoint(), "use_bias": False}
    return [
        QuantConv2D(filters[0], 3, padding="same", **exact),
        keras.layers.BatchNormalization(**norm),
        *block(filters[1]),
        *block(filters[2]),
        keras.layers.Flatten(),
        QuantDense(50, **binary(), **clip(step)),
        keras.layers.BatchNormalization(**norm),
        QuantDense(7, input_quantizer="ste_sign", **exact),
        keras.layers.BatchNormalization(**norm),
        keras.layers.Activation("softmax"),
    ]


@pytest.mark.parametrize(
    "step, pool, pad_values, norm, bias",
    [
        (None, "before", 0, {}, False),
        (1, "before", 0, {}, False),
        (1, "after", 1, {"scale": False}, True),
        (2, "after", 0, {"epsilon": 1e-5}, False),
        (2, "before", -1, {"center": False}, False),
        (8, "before", 1, {"scale": False, "center": False}, False),
        (8, "after", 0, {}, True),
        (None, "after", -1, {"fused": False}, True),
    ],
)
def test_sequential_vgg(keras, step, pool, pad_values, norm, bias):
    model = keras.Sequential([keras.Input((10, 8, 2)), *vgg(keras, step, pool, pad_values, norm, bias)])
    randomize(model)
    lowered = check(model)
    types = [op.type for op in lowered.ops]
    assert types == [
        *("Conv2D", "Bitpack", "BinaryConv2D", "BitMaxPool2D", "BinaryConv2D", "BitMaxPool2D", "BinaryConv2D"),
        *("Unpack", "Conv2D", "Softmax"),
    ]
    convs = ops_of(lowered, ir.BinaryConv2D)
    assert all(c.epilogue is ir.Epilogue.THRESHOLD and (c.clip_limit == 127) == (step is not None) for c in convs)
    assert convs[2].window.kernel_h == 2 and convs[2].window.kernel_w == 2
    if step is not None:
        assert all(c.thresholds.dtype == np.int8 for c in convs)


def test_functional_model_with_branches(keras):
    """Two layers share one sign, a batch norm feeds a sign and a float branch, two outputs, a shared layer."""
    from larq_clip._keras import lq
    from larq_clip.layers import QuantConv2D
    from larq_clip.quantizers import FixedPoint

    x = keras.Input((8, 8, 3), name="image")
    y = lq.layers.QuantConv2D(16, 3, strides=2, padding="same", kernel_quantizer=FixedPoint(), use_bias=False)(x)
    y = keras.layers.BatchNormalization(name="first")(y)
    a = QuantConv2D(24, 3, padding="same", name="a", **binary(), **clip(1))(y)
    b = QuantConv2D(24, 1, groups=2, name="b", **binary(), **clip(2))(y)
    relu = keras.layers.ReLU()
    b = relu(b)
    a = keras.layers.BatchNormalization(name="norm_a")(a)
    c = QuantConv2D(12, 3, dilation_rate=2, padding="same", pad_values=1.0, name="c", **binary(), **clip(1))(a)
    first = keras.layers.GlobalAveragePooling2D(name="mean")(relu(a))
    second = keras.layers.GlobalMaxPooling2D(name="max")(c)
    b = keras.layers.AveragePooling2D(3, 2, padding="same")(b)
    third = keras.layers.Dense(5, activation="relu")(keras.layers.Flatten()(b))
    model = keras.Model(x, [first, second, third])
    randomize(model)
    lowered = check(model)
    assert [op.output for op in ops_of(lowered, ir.Bitpack)].count("a:input") == 1
    assert {op.input for op in ops_of(lowered, ir.BinaryConv2D) if op.output.startswith(("a", "b"))} == {"a:input"}
    assert all(lowered.tensors[name].dtype is DType.FLOAT32 for name in lowered.outputs)


def test_one_tensor_as_several_outputs(keras):
    """By name, and by a layer that does nothing in inference."""
    from larq_clip._keras import lq
    from larq_clip.interpreter import Interpreter

    x = keras.Input((70,))
    y = lq.layers.QuantDense(9, name="dense", **binary())(x)
    signs = lq.quantizers.SteSign(name="signs")(y)
    model = keras.Model(x, [y, signs, keras.layers.Dropout(0.5)(y), signs, y])
    randomize(model)
    lowered = check(model)
    assert lowered.outputs == ("dense", "signs", "dense:again", "signs:again", "dense:again:2")
    images = dyadic(np.random.default_rng(0), (3, 70))
    for actual, expected in zip(
        Interpreter(writer.write(lowered)).predict(images), model.predict(images, verbose=0), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)


def test_explicit_sign_layers(keras):
    """Signs as layers of their own, pooled and flattened after the sign, as in some Larq models."""
    from larq_clip._keras import lq

    weights = {"kernel_quantizer": "ste_sign", "use_bias": False}
    model = keras.Sequential(
        [
            keras.Input((8, 8, 6)),
            keras.layers.Activation(lq.quantizers.SteSign()),
            keras.layers.Activation(lq.quantizers.ste_sign),
            lq.layers.QuantConv2D(12, 3, padding="same", pad_values=1.0, **weights),
            keras.layers.BatchNormalization(),
            lq.quantizers.ApproxSign(),
            keras.layers.MaxPooling2D(3, 2, padding="same"),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            lq.layers.QuantDense(9, **binary()),
            lq.quantizers.SteSign(name="out"),
        ]
    )
    randomize(model)
    lowered = check(model)
    assert [op.type for op in lowered.ops] == [
        *("Bitpack", "BinaryConv2D", "BitMaxPool2D", "BinaryConv2D", "Unpack"),
    ]


def test_clip_switched_off_is_not_imported(keras):
    from larq_clip.converter import keras_importer
    from larq_clip.layers import QuantDense
    from larq_clip.quantizers import AccumulatorClip

    quantizer = AccumulatorClip(step=1)
    model = keras.Sequential([keras.Input((200,)), QuantDense(4, **binary(), accumulator_quantizer=quantizer)])
    model.set_weights([np.ones((200, 4), np.float32)])
    x = np.ones((1, 200), np.float32)
    for enabled, expected in ((True, 127), (False, 200), (True, 127)):
        quantizer.enabled = enabled
        graph = keras_importer.import_model(model)
        assert bool(ops_of(graph, ir.AccumulatorClip)) is enabled
        lowered = pipeline.lower(graph)
        assert np.all(ir.evaluate(lowered, {lowered.inputs[0]: x})[lowered.outputs[0]] == expected)
        assert np.all(model.predict(x, verbose=0) == expected)


def test_names_of_tensors(keras):
    from larq_clip.converter import keras_importer
    from larq_clip.layers import QuantConv2D

    layer = QuantConv2D(4, 3, name="conv", activation="relu", **binary(use_bias=True), **clip(1))
    model = keras.Sequential([keras.Input((5, 5, 3), name="image"), layer])
    graph = keras_importer.import_model(model)
    assert list(graph.tensors) == ["image", "conv:input", "conv:accumulator", "conv:clipped", "conv:linear", "conv"]
    lowered = pipeline.lower(graph)
    assert [op.name for op in lowered.ops] == ["conv:input", "conv", "conv"]


def test_kernels_count_by_what_they_hold(keras):
    """A first layer with a binary kernel stays float; a binary kernel without a quantizer is binary."""
    from larq_clip._keras import lq

    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            lq.layers.QuantConv2D(8, 3, kernel_quantizer="ste_sign", use_bias=False),
            lq.layers.QuantConv2D(8, 3, input_quantizer="ste_sign", use_bias=False),
            lq.layers.QuantConv2D(8, 1, input_quantizer="ste_sign", use_bias=True),
        ]
    )
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (3, 3, 8, 8))
    model.set_weights([rng.uniform(-1, 1, (3, 3, 3, 8)), signs, dyadic(rng, (1, 1, 8, 8)), dyadic(rng, (8,))])
    lowered = check(model)
    assert [op.type for op in lowered.ops] == ["Conv2D", "Bitpack", "BinaryConv2D", "Unpack", "Conv2D"]
    assert np.all(np.abs(lowered.ops[0].weights) == 1)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_saved_models_convert_to_the_same_bytes(keras, tmp_path):
    from larq_clip import convert_keras_model

    model = keras.Sequential([keras.Input((10, 8, 2)), *vgg(keras, 1, "before", 0, {}, filters=(4, 5, 6))], name="v")
    randomize(model)
    data = convert_keras_model(model)
    assert data[4:8] == b"LCB1" and convert_keras_model(model) == data
    for name in ("m.h5", "m.keras"):
        model.save(tmp_path / name)
        assert convert_keras_model(keras.models.load_model(tmp_path / name)) == data


@contextlib.contextmanager
def separate_kernels():
    """TensorFlow's graph optimizer does not merge the kernels of different layers."""
    from larq_clip._keras import tf

    tf.config.optimizer.set_experimental_options({"remapping": False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"remapping": True})


def model_on_ties(keras, kind: str, norm: dict, channels: int = 40):
    """A layer, a batch norm and a sign, and images.

    In every channel there is a value of the layer, met in the images, for which the batch norm is 0 if each of its
    operations is rounded; another order of operations, or fewer roundings, gives another sign.
    """
    from larq_clip._keras import lq
    from larq_clip.layers import QuantConv2D
    from larq_clip.quantizers import FixedPoint

    first = {"kernel_quantizer": FixedPoint(bits=4, fraction_bits=2), "padding": "same", "use_bias": False}
    layers = {
        "first": [QuantConv2D(channels, 3, **first)],
        "conv": [lq.layers.QuantConv2D(channels, 3, padding="same", **binary())],
        "bias": [lq.layers.QuantConv2D(channels, 3, **binary(use_bias=True))],
        "relu": [lq.layers.QuantConv2D(channels, 3, activation="relu", **binary(use_bias=True))],
        "dense": [keras.layers.Flatten(), lq.layers.QuantDense(channels, **binary())],
        "clipped": [QuantConv2D(channels, 3, padding="same", **binary(), **clip(2))],
    }[kind]
    before = keras.Sequential([keras.Input((9, 9, 6)), *layers])
    bn = keras.layers.BatchNormalization(**norm)
    model = keras.Sequential([keras.Input((9, 9, 6)), *before.layers, bn, lq.quantizers.SteSign(name="signs")])
    rng = np.random.default_rng(0)
    before.set_weights([rng.uniform(-1.9, 1.9, w.shape) for w in before.weights])
    x = rng.integers(-2, 3, (50, 9, 9, 6)).astype(np.float32) / 2
    seen = before(x).numpy().reshape(-1, channels)
    value = np.array([rng.choice(np.unique(column)) for column in seen.T])
    gamma = rng.uniform(0.5, 2, channels) * rng.choice([-1, 1], channels) if bn.scale else np.ones(channels)
    mean, variance = rng.uniform(-5, 5, channels).astype("f"), rng.uniform(1, 99, channels).astype("f")
    scale = gamma.astype("f") / np.sqrt(variance + np.float32(bn.epsilon))
    beta = -((value - mean) * scale) if bn.fused else mean * scale - value * scale
    bn.set_weights([gamma] * bn.scale + [beta, mean, variance])
    return model, x


@pytest.mark.parametrize("kind", ["first", "conv", "bias", "relu", "dense", "clipped"])
@pytest.mark.parametrize("norm", [{}, {"scale": False}, {"fused": False}])
def test_signs_on_ties_are_those_of_the_layers_one_by_one(keras, kind, norm):
    """Those of predict too; but TensorFlow may merge a convolution that has neither bias nor clip with a batch norm,
    and then rounds differently, depending on its version and the machine."""
    from larq_clip import convert_keras_model

    model, x = model_on_ties(keras, kind, norm)
    graph = reader.read(convert_keras_model(model))
    signs = ir.evaluate(graph, {graph.inputs[0]: x})["signs"]
    expected = model(x, training=False).numpy()
    assert -0.9 < expected.mean() < 0.9
    np.testing.assert_array_equal(signs, expected)
    merged = kind in ("first", "conv") and norm.get("fused", True)
    with separate_kernels() if merged else contextlib.nullcontext():
        np.testing.assert_array_equal(signs, model.predict(x, verbose=0))
