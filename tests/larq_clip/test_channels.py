"""Layers of arbitrary code in models to be quantized: known by what they compute, exact where they move channels."""

from __future__ import annotations

import numpy as np
import pytest

from larq_clip import layers
from larq_clip._identify import clip_bounds
from larq_clip._keras import keras, lq, tf
from larq_clip.models import clip_model, quantize_model

L = keras.layers
SHAPE = (6, 6, 3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).normal(size=(8, *SHAPE)).astype(np.float32)


def binary(filters, name):
    return lq.layers.QuantConv2D(
        filters, 3, padding="same", input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, name=name
    )


def quantized(middle, images, **arguments):
    """A stem and a batch norm, then `middle`, then a binary layer and the end; returns clipped and quantized."""
    keras.utils.set_random_seed(2)
    image = keras.Input(SHAPE)
    x = L.BatchNormalization(name="norm")(L.Conv2D(8, 3, name="stem")(image))
    x = middle(x)
    x = L.Dense(3, name="classifier")(L.Flatten(name="flatten")(binary(4, "last")(x)))
    model = keras.Model(image, x)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    clipped = clip_model(model)
    return clipped, *quantize_model(clipped, images, report=True, **arguments)


def kinds(model):
    return {layer.name: type(layer) for layer in model.layers}


@pytest.mark.parametrize(
    "move, channels",
    [
        (lambda x: x[..., 2:5], [2, 3, 4]),
        (lambda x: tf.gather(x, [7, 0], axis=-1), [7, 0]),
        (lambda x: L.Lambda(lambda t: t[:, :, :, ::2], name="lambda")(x), [0, 2, 4, 6]),
    ],
    ids=["slice", "gather", "lambda"],
)
def test_channels_are_taken(move, channels, images):
    _, model, _ = quantized(lambda x: L.Concatenate()([move(x), x]), images)
    (taken,) = [layer for layer in model.layers if isinstance(layer, layers.TakeChannels)]
    assert taken.channels == channels
    before, after = keras.Model(model.inputs, [taken.input, taken.output])(images)
    assert np.array_equal(np.asarray(before)[..., channels], after)


def test_a_split_and_a_shuffle(images):
    def middle(x):
        one, two = tf.split(x, 2, axis=-1)
        return L.Lambda(lambda parts: tf.concat(parts, -1), name="join")([two, one])

    clipped, model, _ = quantized(middle, images)
    taken = {tuple(layer.channels) for layer in model.layers if isinstance(layer, layers.TakeChannels)}
    assert taken == {(0, 1, 2, 3), (4, 5, 6, 7)} and kinds(model)["join"] is layers.Concatenate
    x, y = keras.Model(model.inputs, [model.get_layer("norm_int8").output, model.get_layer("join").output])(images)
    assert np.array_equal(y, np.asarray(x)[..., [4, 5, 6, 7, 0, 1, 2, 3]])


@pytest.mark.parametrize("before", [0, 3, 5])
def test_a_sum_with_a_narrower_tensor(before, images):
    def middle(x):
        narrow = binary(3, "conv")(x)
        return L.Lambda(
            lambda two: two[0] + tf.pad(two[1], [[0, 0], [0, 0], [0, 0], [before, 5 - before]]), name="merge"
        )([x, narrow])

    _, model, _ = quantized(middle, images)
    assert kinds(model)["merge"] is layers.Add and kinds(model)["merge_pad"] is layers.PadChannels
    tensors = [model.get_layer(name).output for name in ("norm_int8", "conv", "merge")]
    wide, narrow, total = (np.asarray(t, np.float64) for t in keras.Model(model.inputs, tensors)(images))
    wide[..., before : before + 3] += narrow
    assert np.array_equal(total, wide)


def test_an_identity_does_not_come_between_an_exact_sum_and_its_sign(images):
    def middle(x):
        total = L.Add(name="add")([x, L.BatchNormalization(name="inner")(binary(8, "conv")(x))])
        return L.Lambda(lambda t: t, name="block_out")(total)

    _, model, _ = quantized(middle, images)
    assert "add_int8" not in kinds(model)
    total, out = keras.Model(model.inputs, [model.get_layer("add").output, model.get_layer("block_out").output])(images)
    assert out.dtype == tf.float64 and np.array_equal(total, out)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1e-6 * tf.reduce_mean(x),
        lambda x: x[..., :4] * 2,
        lambda x: x[:, ::-1],
        lambda x: tf.where(x > 1e20, x - x, x),
        lambda x: tf.reshape(x, (-1, 4, 2, 16)),
    ],
)
def test_other_code_is_refused(function, images):
    with pytest.raises(ValueError, match=r"'other' \(Lambda\) cannot be quantized: .* whose code is none of those"):
        quantized(lambda x: L.Lambda(function, name="other")(x), images)


@pytest.mark.parametrize(
    "activation, bounds",
    [
        (L.ReLU(6.0), (0, 6)),
        (L.Activation("hard_tanh"), (-1, 1)),
        (L.Activation(lambda x: tf.clip_by_value(x, -0.25, 2.5)), (-0.25, 2.5)),
        (L.ReLU(), None),
        (L.ReLU(1 / 3), None),
        (L.Activation("linear"), None),
        (L.Activation("tanh"), None),
        (L.Activation("hard_sigmoid"), None),
        (L.ReLU(6.0, negative_slope=0.1), None),
    ],
)
def test_clip_bounds(activation, bounds):
    assert clip_bounds(activation) == bounds


def test_a_bounded_activation_is_exact(images):
    clipped, model, report = quantized(lambda x: L.Add()([x, L.ReLU(6.0, name="relu6")(x)]), images)
    x, y = keras.Model(model.inputs, [model.get_layer("relu6").input, model.get_layer("relu6").output])(images)
    assert y.dtype == tf.float64 and np.array_equal(y, np.clip(x, 0, 6))
    assert {row.format for row in report if row.layer == "relu6"} == {""}


@pytest.mark.parametrize("activation", [L.PReLU, lambda name: L.Activation("tanh", name=name)], ids=["prelu", "tanh"])
def test_real_valued_layers_are_reported_and_stored_behind(activation, images):
    def middle(x):
        return L.BatchNormalization(name="inner")(L.MaxPooling2D(2, name="pool")(activation(name="act")(x)))

    _, model, report = quantized(middle, images)
    assert {row.layer for row in report if row.format == "float32"} == {"act"}
    assert kinds(model)["inner"] is layers.FixedPointBatchNormalization
    stored = model.get_layer("act_int8")
    assert model.get_layer("pool").input is stored.output
    before, after = keras.Model(model.inputs, [stored.input, stored.output])(images)
    assert before.dtype == tf.float32
    q = np.ldexp(np.asarray(after, np.float64), stored.fraction_bits)
    assert np.array_equal(q, np.round(q)) and 64 <= np.abs(q).max() <= 127


def test_a_gate_stays_float_until_it_is_stored(images):
    def middle(x):
        gate = L.Dense(8, activation="sigmoid", name="gate")(L.GlobalAveragePooling2D(name="mean")(x))
        y = L.Multiply(name="scaled")([binary(8, "conv")(x), L.Reshape((1, 1, 8), name="reshape")(gate)])
        return L.Add(name="add")([x, y])

    _, model, report = quantized(middle, images)
    formats = {row.layer: row.format for row in report}
    assert formats["scaled"] == "float32" and formats["gate"].endswith(", sigmoid in float64")
    assert kinds(model)["gate"] is layers.Int8Dense
    assert "gate_int8" not in kinds(model) and "scaled_int8" in kinds(model)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="channels is .*; accepted is a list of indices"):
        layers.TakeChannels([])
    with pytest.raises(ValueError, match="takes channel 9; its input has 8"):
        layers.TakeChannels([9])(np.zeros((1, 8), np.float32))
    with pytest.raises(ValueError, match="after is -1"):
        layers.PadChannels(0, -1)


def test_channel_layers_save_and_load(tmp_path):
    image = keras.Input((2, 8))
    model = keras.Model(image, layers.PadChannels(1, 2)(layers.TakeChannels([7, 3])(image)))
    model.save(tmp_path / "model.h5")
    x = np.random.default_rng(0).normal(size=(2, 2, 8)).astype(np.float32)
    found = keras.models.load_model(tmp_path / "model.h5")(x)
    assert np.array_equal(found, np.pad(x[..., [7, 3]], [(0, 0), (0, 0), (1, 2)]))
