"""QuantConv2D and QuantDense: where the clip acts, and that Larq's own features keep working."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from larq_clip import arithmetic, layers
from larq_clip._keras import keras, lq, tf
from larq_clip.quantizers import AccumulatorClip

CLIP = {"bits": 3, "step": 2}


def exact_accumulators(layer, x):
    """Those of a convolution layer, by the integer reference; `x` channels last."""
    kernel = np.moveaxis(layer.get_weights()[0], 3, 0)
    axes = tuple(
        arithmetic.window_axis(size, kernel, stride, dilation, layer.padding)
        for size, kernel, stride, dilation in zip(x.shape[1:3], layer.kernel_size, layer.strides, layer.dilation_rate)
    )
    return arithmetic.binary_conv2d(
        arithmetic.sign_bits(x), arithmetic.sign_bits(kernel), axes, int(layer.pad_values), layer.groups
    )


CONVOLUTIONS = [
    {"filters": 5, "kernel_size": 3},
    {"filters": 4, "kernel_size": (3, 2), "padding": "same", "pad_values": 0.0},
    {"filters": 4, "kernel_size": 3, "padding": "same", "pad_values": 1.0, "strides": 2},
    {"filters": 4, "kernel_size": 3, "padding": "same", "pad_values": -1.0, "dilation_rate": 2},
    {"filters": 6, "kernel_size": 3, "padding": "same", "groups": 2},
    {"filters": 8, "kernel_size": 3, "padding": "same", "pad_values": 1.0, "groups": 4},
]


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("arguments", CONVOLUTIONS)
def test_convolution_clips_the_exact_accumulator_before_bias_and_activation(binary, arguments, use_bias, rng):
    x = rng.standard_normal((3, 7, 8, 8)).astype(np.float32)
    layer = layers.QuantConv2D(
        **binary,
        **arguments,
        use_bias=use_bias,
        bias_initializer=keras.initializers.Constant(100.25),
        activation="relu",
        accumulator_quantizer=AccumulatorClip(**CLIP),
    )
    out = layer(x).numpy()
    a = exact_accumulators(layer, x)
    clipped = arithmetic.clip_accumulator(a, **CLIP) * CLIP["step"]
    assert np.any(clipped != a)
    np.testing.assert_array_equal(out, np.maximum(clipped + (100.25 if use_bias else 0), 0))
    layer.accumulator_quantizer.enabled = False
    np.testing.assert_array_equal(layer(x), np.maximum(a + (100.25 if use_bias else 0), 0))
    np.testing.assert_array_equal(tf.function(layer)(x), layer(x))


@pytest.mark.parametrize("shape", [(4, 40), (2, 3, 40), (2, 3, 2, 40)])
def test_dense_clips_the_exact_accumulator_before_bias_and_activation(binary, shape, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    layer = layers.QuantDense(
        7,
        **binary,
        bias_initializer=keras.initializers.Constant(-3.5),
        activation="relu",
        accumulator_quantizer=AccumulatorClip(**CLIP),
    )
    out = layer(x).numpy()
    a = np.where(x < 0, -1, 1) @ np.where(layer.get_weights()[0] < 0, -1, 1)
    clipped = arithmetic.clip_accumulator(a, **CLIP) * CLIP["step"]
    assert np.any(clipped != a)
    np.testing.assert_array_equal(out, np.maximum(clipped - 3.5, 0))
    layer.accumulator_quantizer.enabled = False
    np.testing.assert_array_equal(layer(x), np.maximum(a - 3.5, 0))
    symbolic = keras.Model(inputs := keras.Input(shape[1:]), layer(inputs))
    assert symbolic.output_shape == (None, *shape[1:-1], 7)


@st.composite
def binary_convolutions(draw):
    """A layer that is not built, and images of its input's signs; some of one sign, so that they saturate."""
    groups, per_group, kernel = draw(st.sampled_from([1, 2])), draw(st.integers(1, 70)), draw(st.integers(1, 3))
    padding = draw(st.sampled_from(["valid", "same"]))
    x = np.random.default_rng(draw(st.integers(0, 999))).standard_normal((2, 3, 4, groups * per_group))
    x[0] = draw(st.sampled_from([x[0], np.abs(x[0]), -np.abs(x[0])]))
    layer = layers.QuantConv2D(
        3 * groups,
        kernel,
        strides=draw(st.integers(1, 2)),
        groups=groups,
        padding=padding,
        pad_values=float(draw(st.integers(-1, 1))) if padding == "same" else 0.0,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        use_bias=False,
        accumulator_quantizer=AccumulatorClip(draw(st.integers(2, 16)), draw(st.sampled_from([0.5, 1, 2, 8]))),
    )
    return layer, x.astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(binary_convolutions(), st.booleans())
def test_any_convolution_is_the_arithmetic(case, one_sign):
    layer, x = case
    layer.build(x.shape)
    if one_sign:
        layer.set_weights([np.abs(w) for w in layer.get_weights()])
    clip = layer.accumulator_quantizer
    expected = clip.step * arithmetic.clip_accumulator(exact_accumulators(layer, x), clip.bits, clip.step)
    np.testing.assert_array_equal(layer(x), expected)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 600),
    st.integers(1, 9),
    st.sampled_from([AccumulatorClip(), AccumulatorClip(step=2), AccumulatorClip(bits=4), AccumulatorClip(step=0.5)]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_any_dense_layer_is_the_arithmetic(inputs, units, clip, one_sign, seed):
    random = np.random.default_rng(seed)
    x = random.standard_normal((3, inputs)).astype(np.float32)
    kernel = random.standard_normal((inputs, units)).astype(np.float32)
    if one_sign:  # the largest sum there is
        x, kernel = np.abs(x), np.abs(kernel)
    layer = layers.QuantDense(
        units, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, accumulator_quantizer=clip
    )
    layer.build(x.shape)
    layer.set_weights([kernel])
    accumulators = np.where(x >= 0, 1, -1) @ np.where(kernel >= 0, 1, -1)
    expected = clip.step * arithmetic.clip_accumulator(accumulators, clip.bits, clip.step)
    np.testing.assert_array_equal(layer(x), expected)


@pytest.mark.parametrize("make", ["conv", "dense", "grouped"])
def test_without_a_quantizer_the_layer_is_larqs(make, rng):
    x = rng.standard_normal((2, 6, 6, 8)).astype(np.float32)
    kind, arguments = {
        "conv": ("QuantConv2D", {"filters": 4, "kernel_size": 3, "padding": "same", "pad_values": 1.0}),
        "grouped": ("QuantConv2D", {"filters": 4, "kernel_size": 3, "groups": 2}),
        "dense": ("QuantDense", {"units": 4}),
    }[make]
    ours, theirs = (
        getattr(module, kind)(
            **arguments,
            input_quantizer=lq.quantizers.SteSign(name="input"),
            kernel_quantizer=lq.quantizers.SteSign(name="kernel"),
            activation="tanh",
            name="same",
        )
        for module in (layers, lq.layers)
    )
    ours(x), theirs(x)
    ours.set_weights(theirs.get_weights())
    np.testing.assert_array_equal(ours(x), theirs(x))
    assert isinstance(ours, type(theirs))
    config = ours.get_config()
    assert config.pop("accumulator_quantizer") is None
    own = [config.pop(name) for name in ("scaled_kernel", "scale_fraction_bits", "input_levels")]
    assert own == [False, None, None]
    assert config == theirs.get_config()


def test_kernel_gradient_is_that_of_the_clip(binary, rng):
    x = rng.standard_normal((5, 30)).astype(np.float32)
    clipped = layers.QuantDense(6, **binary, use_bias=False, accumulator_quantizer=AccumulatorClip(3))
    plain = lq.layers.QuantDense(6, **binary, use_bias=False)
    clipped(x), plain(x)
    plain.set_weights(clipped.get_weights())
    upstream = tf.constant(rng.standard_normal((5, 6)), tf.float32)
    inside = tf.cast(tf.abs(plain(x)) <= 3, tf.float32)
    assert 0 < float(tf.reduce_mean(inside)) < 1

    def kernel_gradient(layer, dy):
        with tf.GradientTape() as tape:
            y = layer(x)
        return tape.gradient(y, layer.trainable_weights, output_gradients=dy)[0].numpy()

    np.testing.assert_array_equal(kernel_gradient(clipped, upstream), kernel_gradient(plain, upstream * inside))


def test_channels_first_is_channels_last_transposed(binary, rng):
    x = rng.standard_normal((2, 7, 7, 8)).astype(np.float32)
    last, first = (
        layers.QuantConv2D(
            6,
            3,
            **binary,
            padding="same",
            pad_values=1.0,
            data_format=data_format,
            accumulator_quantizer=AccumulatorClip(**CLIP),
        )
        for data_format in ("channels_last", "channels_first")
    )
    x_first = np.moveaxis(x, 3, 1)
    last(x)
    first.build(x_first.shape)
    first.set_weights(last.get_weights())
    # A CPU has this layout in compiled functions only.
    out = tf.function(first, jit_compile=True)(tf.constant(x_first))
    np.testing.assert_array_equal(np.moveaxis(out.numpy(), 1, 3), last(x))


@pytest.mark.parametrize("groups", [1, 2])
def test_training_reaches_the_counters(binary, groups, rng):
    x = rng.standard_normal((4, 6, 6, 8)).astype(np.float32)
    layer = layers.QuantConv2D(4, 3, groups=groups, **binary, accumulator_quantizer=AccumulatorClip(3))
    model = keras.Sequential([keras.layers.InputLayer(x.shape[1:]), layer, keras.layers.GlobalAveragePooling2D()])
    model.compile("sgd", "mse", metrics=["mae"])
    y = np.zeros((4, 4), np.float32)
    clip = layer.accumulator_quantizer
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    assert np.isnan(clip.saturation())
    expected = np.mean(np.abs(exact_accumulators(layer, x)) > 3)
    model.train_on_batch(x, y)
    assert clip.saturation() == expected > 0
    model.evaluate(x, y, verbose=0)
    assert clip.saturation() == expected


# ---- Larq's features ------------------------------------------------------------------------------------------------


def test_summary_is_that_of_larq(build_network):
    def summary(model):
        lines = []
        lq.models.summary(model, print_fn=lines.append)
        return lines

    assert summary(build_network(layers, accumulator_quantizer="accumulator_clip")) == summary(build_network())


def test_flip_ratio_metric_works(build_network, images, labels):
    with lq.context.metrics_scope(["flip_ratio"]):
        model = build_network(layers, accumulator_quantizer="accumulator_clip")
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(images, labels, epochs=2, verbose=0).history
    assert [k for k in history if "flip_ratio" in k], history


def test_constraint_keeps_latent_weights_clipped(binary, rng):
    layer = layers.QuantDense(3, **binary, accumulator_quantizer="accumulator_clip")
    model = keras.Sequential([keras.layers.InputLayer((9,)), layer])
    model.compile(keras.optimizers.SGD(100.0), "mse")
    model.train_on_batch(rng.standard_normal((4, 9)), 1000 * rng.standard_normal((4, 3)))
    assert np.abs(layer.get_weights()[0]).max() == 1


# ---- Configs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "identifier",
    ["accumulator_clip", {"class_name": "accumulator_clip", "config": {"step": 4}}, AccumulatorClip(6), None],
)
def test_config_round_trips(binary, identifier):
    if isinstance(identifier, AccumulatorClip):
        identifier = AccumulatorClip.from_config(identifier.get_config())
    layer = layers.QuantConv2D(3, 3, **binary, pad_values=1.0, padding="same", accumulator_quantizer=identifier)
    again = layers.QuantConv2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.accumulator_quantizer is None) == (identifier is None)
    serialized = keras.layers.serialize(layer)
    revived = keras.layers.deserialize(serialized)
    assert type(revived) is layers.QuantConv2D and revived.get_config() == layer.get_config()
    assert serialized["registered_name"] == "LarqClip>QuantConv2D"


def test_any_callable_is_an_accumulator_quantizer(binary):
    layer = layers.QuantDense(3, **binary, accumulator_quantizer=lambda a: a * 0 + 7)
    np.testing.assert_array_equal(layer(tf.ones((2, 5))), np.full((2, 3), 7.0))


def test_unknown_string_is_refused(binary):
    with pytest.raises(ValueError, match="accumulator_klip"):
        layers.QuantDense(3, **binary, accumulator_quantizer="accumulator_klip")


def test_one_clip_serves_one_layer(binary):
    clip = AccumulatorClip()
    first = layers.QuantDense(3, **binary, accumulator_quantizer=clip, name="first")
    first(tf.ones((1, 4)))
    second = layers.QuantDense(3, **binary, accumulator_quantizer=clip, name="second")
    with pytest.raises(ValueError, match="'second' is the AccumulatorClip object that 'first' uses already"):
        second(tf.ones((1, 4)))
    first(tf.ones((2, 4)))  # a layer that is called twice is one layer
    del first, second
    gc.collect()
    layers.QuantDense(3, **binary, accumulator_quantizer=clip)(tf.ones((1, 4)))


# ---- Dtypes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind, arguments", [("QuantDense", (3,)), ("QuantConv2D", (3, 1))])
def test_inexact_dtypes_are_refused_by_name(binary, policy, kind, arguments):
    layer = getattr(layers, kind)(
        *arguments, **binary, dtype=policy, name="narrow", accumulator_quantizer="accumulator_clip"
    )
    with pytest.raises(ValueError, match=rf"{kind} 'narrow' with an accumulator_quantizer computes in b?float16"):
        layer(tf.ones((1, 2, 2, 4)))


def test_mixed_precision_around_a_float32_layer_works(rng):
    x = rng.standard_normal((2, 5000)).astype(np.float32)
    try:
        keras.mixed_precision.set_global_policy("mixed_float16")
        layer = layers.QuantDense(
            3,
            dtype="float32",
            input_quantizer=lq.quantizers.SteSign(dtype="float32"),
            kernel_quantizer=lq.quantizers.SteSign(dtype="float32"),
            kernel_initializer=keras.initializers.Constant(np.tile([[1.0, -1.0, 1.0]], (5000, 1))),
            accumulator_quantizer=AccumulatorClip(16),
        )
        out = layer(tf.abs(x))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert out.dtype == tf.float32
    np.testing.assert_array_equal(out, [[5000, -5000, 5000]] * 2)


def test_float64_stays_float64():
    layer = layers.QuantDense(
        3,
        dtype="float64",
        input_quantizer=lq.quantizers.SteSign(dtype="float64"),
        kernel_quantizer=lq.quantizers.SteSign(dtype="float64"),
        accumulator_quantizer="accumulator_clip",
    )
    assert layer(tf.ones((1, 4), tf.float64)).dtype == tf.float64
