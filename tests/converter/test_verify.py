"""Verification: silent on what is right, and naming layer, channel, pixel and both values of what is not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fixed_point_support import MODELS, quantized
from support import dyadic_images, small_vgg
from verify_support import as_if_trained, at, changed

from larq_clip import ConversionError, VerificationError, convert_keras_model, verify_keras_model
from larq_clip.converter import compare, ir, reader, rounding, writer
from larq_clip.interpreter import Interpreter

MAKERS = {
    "plain": lambda: small_vgg(step=None, pool="after", pad_values=1.0),
    "clipped": lambda: small_vgg(step=1),
    "resnet": lambda: quantized(MODELS["resnet"]),
    "quicknet": lambda: quantized(MODELS["quicknet"]),
    "float tail": lambda: quantized(MODELS["resnet"], float_layers="float32"),
}


@pytest.fixture(scope="module")
def model_of():
    """Models and their files by name, each made once."""
    made: dict = {}

    def get(name: str):
        if name not in made:
            model = MAKERS[name]()
            made[name] = model, convert_keras_model(model)
        return made[name]

    return get


def of_multiplier(fixed_point):
    """A multiplier of a fixed-point epilogue, of channel 0, larger by a half."""
    steps = list(fixed_point.steps)
    place = next(i for i, step in enumerate(steps) if step.multiplier is not None)
    steps[place] = dataclasses.replace(steps[place], multiplier=at(0, lambda m: m + m // 2)(steps[place].multiplier))
    return dataclasses.replace(fixed_point, steps=tuple(steps))


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_found_in_a_right_file(name, model_of):
    """Images whose sums round, so that float layers differ in their last bits, and signs may."""
    model, data = model_of(name)
    found = verify_keras_model(model, data).require()
    graph = reader.read(data)
    assert found.images == 4 and found.constants is True and found.ops == len(graph.ops)
    integers = {n for n in found.tensors if graph.tensors[n].dtype is not ir.DType.FLOAT32}
    signs = {n for n, tensor in graph.tensors.items() if tensor.dtype is ir.DType.BIT and ":before" not in n}
    assert signs & set(found.tensors) and set(graph.outputs) <= set(found.tensors)
    assert all(found.tensors[n] == 0 for n in integers) and not found.flipped
    for tensor, allowed in found.allowed.items():
        assert 0 < found.tensors[tensor] <= allowed < 1e-3, tensor
    if name in ("resnet", "quicknet"):  # of integers: nothing rounds
        assert not found.allowed and found.outputs == dict.fromkeys(graph.outputs, 0.0)


@pytest.mark.parametrize(
    "name, op_type, number, changes, channel",
    [
        ("clipped", "BinaryConv2D", 0, {"thresholds": at(5, lambda t: -t - 40)}, 5),
        ("clipped", "BitMaxPool2D", 1, {"invert": at(7, lambda bit: 1 - bit)}, 7),
        ("plain", "Bitpack", 0, {"thresholds": at(3, lambda t: t + 0.5)}, 3),
        ("plain", "Conv2D", 1, {"weights": at((0, 0, 40, 2), lambda w: w + 2**-6)}, 2),
        ("clipped", "BinaryConv2D", 0, {"weights": at((4, 1, 1), lambda bits: 1 - bits)}, 4),
        ("resnet", "Int8Conv2D", 0, {"weights": at((6, 1, 1, 0), lambda w: w // 2 - 30)}, 6),
        ("resnet", "BinaryConv2D", 0, {"fixed_point": of_multiplier}, 0),
        ("quicknet", "Int8Conv2D", -1, {"bias": at(4, lambda b: b + 1)}, 4),
        ("float tail", "Conv2D", 0, {"weights": at((1, 1, 1, 3), lambda w: w + 1e-4)}, 3),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_constant_is_found_where_it_is(name, op_type, number, changes, channel, model_of):
    model, data = model_of(name)
    wrong, layer = changed(data, op_type, number, **changes)
    found = verify_keras_model(model, wrong, samples=6, constants=False)
    mismatch = found.mismatch
    assert mismatch is not None and mismatch.against == "Keras"
    assert set(layer.split("+")) <= set(mismatch.layer.split("+")) and op_type in mismatch.op
    assert mismatch.place[-1] == channel and mismatch.differing >= 1
    graph = reader.read(wrong)
    tensor = graph.tensors[mismatch.tensor]
    runtime = Interpreter(wrong, keep_tensors=True).tensors(_image(model, mismatch.image))[tensor.name]
    runtime = runtime if tensor.dtype is ir.DType.BIT else rounding.reals(runtime, tensor)
    assert mismatch.found == runtime[0][mismatch.place] != mismatch.expected
    with pytest.raises(VerificationError) as error:
        found.require()
    for words in (layer.split("+")[0], f"channel {channel}: Keras computes", "convert the model again"):
        assert words in str(error.value)
    if len(mismatch.place) == 3:
        assert f"row {mismatch.place[0]}, column {mismatch.place[1]}, channel" in str(error.value)


def _image(model, number: int) -> np.ndarray:
    from larq_clip.converter import random_images

    return random_images(6, tuple(model.input_shape[1:]))[number : number + 1]


def test_constants_that_no_image_reaches(model_of):
    """A threshold that is wrong by one changes few signs or none; the model's weights tell."""
    model, data = model_of("clipped")
    wrong, layer = changed(data, "BinaryConv2D", 2, thresholds=at(1, lambda t: t + 1 if t < 100 else t - 1))
    one = dyadic_images(1)
    mismatch = verify_keras_model(model, wrong, one).mismatch
    assert mismatch is not None and layer in mismatch.layer
    constant = compare.first_difference(reader.read(data), reader.read(wrong))
    assert (constant.layer, constant.constant, constant.place) == (layer, "thresholds", (1,))
    assert abs(int(constant.expected) - int(constant.found)) == 1 and constant.differing == 1
    assert "thresholds, channel 1: the model gives" in str(constant)
    assert verify_keras_model(model, data, one).mismatch is None


def test_a_runtime_that_computes_something_else(model_of, monkeypatch):
    """A difference to the file is told apart from one to Keras, in the op that made it."""
    model, data = model_of("resnet")
    tensors = Interpreter.tensors

    def wrong(self, x):
        found = tensors(self, x)
        found["add_1_int8"][0, 2, 1, 3] += 1
        return found

    monkeypatch.setattr(Interpreter, "tensors", wrong)
    mismatch = verify_keras_model(model, data).mismatch
    assert mismatch.against == "the file" and mismatch.tensor == "add_1_int8" and mismatch.place == (2, 1, 3)
    assert "add_1" in mismatch.layer and mismatch.differing == 1
    with pytest.raises(VerificationError, match="row 2, column 1, channel 3: the file says .* report a bug"):
        verify_keras_model(model, data).require()


def test_the_earliest_layer_is_named_whichever_image_shows_it(model_of, monkeypatch):
    model, data = model_of("resnet")
    tensors, calls = Interpreter.tensors, []

    def wrong(self, x):
        found = tensors(self, x)
        calls.append(1)
        if len(calls) < 3:
            name = ("relu_int8", "add_1_int8")[len(calls) - 1]
            found[name] = found[name] ^ 1
        return found

    monkeypatch.setattr(Interpreter, "tensors", wrong)
    mismatch = verify_keras_model(model, data).mismatch
    assert (mismatch.tensor, mismatch.image) == ("add_1_int8", 1)


def test_layers_that_share_signs_calls_and_outputs():
    """Two layers read one sign, one of them behind zeros or flattened; a layer is called twice; two outputs."""
    from larq_clip._keras import keras, lq

    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    x = keras.Input((6, 6, 3), name="image")
    y = lq.layers.QuantConv2D(8, 3, name="first", kernel_quantizer="ste_sign", use_bias=False)(x)
    y = keras.layers.BatchNormalization(name="norm")(y)
    a = lq.layers.QuantConv2D(16, 3, padding="same", name="a", **binary)(y)
    b = lq.layers.QuantConv2D(16, 1, name="b", **binary)(keras.layers.Dropout(0.5, name="drop")(y))
    shared = keras.layers.BatchNormalization(name="shared")
    flat = keras.layers.Flatten(name="flat")(y)
    a, b = shared(a), shared(b)
    first = lq.layers.QuantDense(5, name="c", **binary)(flat)
    second = lq.layers.QuantConv2D(4, 3, name="d", **binary)(a)
    third = lq.layers.QuantConv2D(4, 1, name="e", **binary)(b)
    model = keras.Model(x, [first, second, third])
    data = convert_keras_model(model)
    graph = reader.read(data)
    assert [op.input for op in graph.ops if op.type == "BinaryConv2D"].count("b:input") == 3
    found = verify_keras_model(model, data).require()
    assert {"b:input", "d:input", "e:input", "c", "d", "e"} <= set(found.tensors)
    number = [op.name.split("+")[0] for op in graph.ops if op.type == "BinaryConv2D"].index("b")
    wrong, _ = changed(data, "BinaryConv2D", number, weights=at((2, 0, 0), lambda bits: 1 - bits))
    mismatch = verify_keras_model(model, wrong, constants=False).mismatch
    assert "b" in mismatch.layer.split("+") and mismatch.tensor == "e:input" and mismatch.place[-1] == 2


def test_outputs_that_layers_of_the_model_read_too():
    """The sign of a scaled sum, of which the file takes a threshold and Keras the sum; and the input itself."""
    from larq_clip._keras import keras, lq

    x = keras.Input((5, 5, 12), name="image")
    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "magnitude_aware_sign", "use_bias": False}
    y = lq.layers.QuantConv2D(16, 3, name="first", **signs)(x)
    z = lq.layers.QuantConv2D(4, 1, name="second", **signs)(y)
    model = keras.Model(x, [z, y, keras.layers.Dropout(0.5, name="drop")(x)])
    data = convert_keras_model(model)
    found = verify_keras_model(model, data, samples=8).require()
    assert {"first", "second:input", "second"} <= set(found.tensors) and not found.flipped
    images = np.random.default_rng(0).normal(size=(2, 5, 5, 12)).astype("f")
    np.testing.assert_array_equal(Interpreter(data).predict(images)[2], images)


def test_a_model_inside_of_a_model():
    from larq_clip._keras import keras, lq

    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    a = keras.Input((6, 6, 8), name="inner_input")
    b = keras.layers.BatchNormalization(name="norm")(
        lq.layers.QuantConv2D(8, 3, padding="same", name="conv", **binary)(a)
    )
    inner = keras.Model(a, keras.layers.Add(name="add")([a, b]), name="inner")
    x = keras.Input((6, 6, 3), name="image")
    y = inner(keras.layers.Conv2D(8, 1, name="stem")(x))
    model = as_if_trained(keras.Model(x, keras.layers.Dense(4, name="dense")(keras.layers.Flatten(name="flat")(y))))
    data = convert_keras_model(model)
    found = verify_keras_model(model, data).require()
    assert {"stem", "inner/conv:input", "dense"} <= set(found.tensors)
    wrong, _ = changed(data, "BinaryConv2D", 0, weights=at((3, 1, 1), lambda bits: 1 - bits))
    mismatch = verify_keras_model(model, wrong, constants=False).mismatch
    assert "inner/conv" in mismatch.layer and mismatch.place[-1] == 3


def test_another_model_is_refused(model_of):
    data = model_of("clipped")[1]
    with pytest.raises(VerificationError, match="the file's inputs are 'input_.*, and the model's 'image'"):
        verify_keras_model(model_of("resnet")[0], data)
    from larq_clip._keras import keras

    renamed = keras.models.clone_model(model_of("clipped")[0])
    renamed.layers[1]._name = "other"
    with pytest.raises(VerificationError, match="the file has the layer 'batch_norm.* which model .* has not"):
        verify_keras_model(renamed, data)


def test_images_that_do_not_fit(model_of):
    model, data = model_of("clipped")
    for images, words in (
        (np.zeros((2, 5)), "accepted are real numbers of shape"),
        (np.zeros((0, 12, 12, 3)), "at least one"),
        ([np.zeros((1, 12, 12, 3))] * 2, "2 arrays of images were given; the model has 1 inputs"),
    ):
        with pytest.raises(ValueError, match=words):
            verify_keras_model(model, data, images)


def test_a_model_that_cannot_be_converted_cannot_be_verified(model_of):
    from larq_clip._keras import keras

    x = keras.Input((4, 4, 4))
    model = keras.Model(x, keras.layers.LayerNormalization()(x))
    with pytest.raises(ConversionError, match="LayerNormalization"):
        verify_keras_model(model, model_of("clipped")[1])


def test_a_file_with_other_ops_has_no_constants_to_compare(model_of):
    """A max pool that another version would have left apart, for instance."""
    model, data = model_of("clipped")
    graph = reader.read(data)
    op = graph.ops[-1]
    renamed = dataclasses.replace(op, name=f"{op.name}+{graph.ops[-2].name}")
    ops = [*graph.ops[:-1], renamed]
    other = writer.write(ir.Graph.build(graph.name, graph.tensors.values(), ops, graph.inputs, graph.outputs))
    found = verify_keras_model(model, other).require()
    assert found.constants is False and any("not compared" in line for line in found.details())
