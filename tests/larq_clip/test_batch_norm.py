"""FixedPointBatchNormalization: the float layer, the integers, gradients, training, configs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from larq_clip import fixed_point as fp
from larq_clip._keras import keras, tf
from larq_clip.layers import FixedPointBatchNormalization

CHANNELS = 3


def array(low, high):
    return hnp.arrays(np.float32, CHANNELS, elements=st.floats(low, high, width=32))


def build(weights=None, shape=(None, CHANNELS), **arguments):
    layer = FixedPointBatchNormalization(name="norm", **arguments)
    layer.build(shape)
    if weights is not None:
        layer.set_weights(weights)
    return layer


def random_weights(rng, channels=CHANNELS):
    return [
        rng.normal(1, 0.3, channels),
        rng.normal(0, 1, channels),
        rng.normal(0, 10, channels),
        rng.uniform(50, 200, channels),
    ]


# ---- While it is not quantized --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}, {"axis": 1}])
@pytest.mark.parametrize("training", [False, True])
def test_it_is_a_batch_norm(rng, arguments, training):
    shape = (4, 5, 6, 5) if arguments.get("axis") == 1 else (4, 6, 6, 5)
    x = rng.normal(0, 3, shape).astype(np.float32)
    plain = keras.layers.BatchNormalization(momentum=0.9, **arguments)
    plain.fused = False
    ours = FixedPointBatchNormalization(momentum=0.9, **arguments)
    for layer in (plain, ours):
        layer.build(shape)
    weights = [rng.uniform(0.5, 2, w.shape) for w in plain.weights]
    plain.set_weights(weights)
    ours.set_weights(weights)
    assert [w.name.split("/")[-1] for w in ours.weights] == [w.name.split("/")[-1] for w in plain.weights]
    y = ours(x, training=training)
    assert y.dtype == tf.float64 and not ours.quantized
    np.testing.assert_array_equal(y, plain(x, training=training))
    for a, b in zip(ours.weights, plain.weights):
        np.testing.assert_array_equal(a, b)


def test_weights_load_by_order_and_by_name(rng, tmp_path):
    def build_model(kind):
        return keras.Sequential([keras.layers.InputLayer((2, 2, 4)), kind(name="norm")])

    plain = build_model(keras.layers.BatchNormalization)
    plain.set_weights([rng.uniform(1, 2, w.shape) for w in plain.weights])
    plain.save_weights(tmp_path / "plain.h5")
    for by_name in (False, True):
        ours = build_model(FixedPointBatchNormalization)
        ours.load_weights(tmp_path / "plain.h5", by_name=by_name)
        for a, b in zip(ours.get_weights(), plain.get_weights()):
            np.testing.assert_array_equal(a, b)


# ---- The integers ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    gamma=array(-8, 8),
    beta=array(-64, 64),
    mean=array(-1000, 1000),
    variance=array(0, 2.0**16),
    q=hnp.arrays(np.int32, (4, CHANNELS), elements=st.integers(-127, 127)),
    step_log2=st.integers(-12, 10),
    kind=st.sampled_from([("folded", "layer"), ("folded", "channel"), ("paper", "layer")]),
)
def test_forward_is_the_integer_program(gamma, beta, mean, variance, q, step_log2, kind):
    variables, granularity = kind
    layer = build([gamma, beta, mean, variance], variables=variables)
    norm = fp.BatchNorm(gamma, beta, mean, variance, 1e-3)
    chosen = layer.quantize(granularity=granularity)
    assert chosen == fp.choose_format(norm, variables, granularity) == layer.format
    expected = fp.affine(q, fp.quantize_batch_norm(norm, chosen), -step_log2)
    x = np.ldexp(q.astype(np.float32), step_log2)
    np.testing.assert_array_equal(layer(x, training=False), fp.values(*expected))
    for ours, reference in zip(layer.integers(), fp.quantize_batch_norm(norm, chosen)):
        np.testing.assert_array_equal(ours, reference)


def test_results_beyond_float32_are_exact():
    layer = build(np.array([[1.0, -1, 1], [0.0, 0, 0], [0.0, 0, 0], [1.0, 1, 1]]), epsilon=0.0)
    layer.quantize(fp.AffineFormat(15))
    assert layer.integers().multiplier.tolist() == [32767, -32767, 32767]
    x = tf.constant([[2.0**31 - 1, 2.0**31 - 1, 0.5]], tf.float64)  # a sum, wider than float32
    assert layer(x).numpy().tolist() == [[32767 * (2**31 - 1) / 2**15, -32767 * (2**31 - 1) / 2**15, 32767 / 2**16]]


@pytest.mark.parametrize("center, scale", [(False, True), (True, False)])
def test_without_gamma_or_beta(rng, center, scale):
    weights = random_weights(rng)
    kept = [w for w, there in zip(weights, (scale, center, True, True)) if there]
    layer = build(kept, center=center, scale=scale)
    chosen = layer.quantize()
    gamma, beta, mean, variance = (np.asarray(w, np.float32) for w in weights)
    norm = fp.BatchNorm(gamma if scale else np.ones(3), beta if center else np.zeros(3), mean, variance, 1e-3)
    q = rng.integers(-127, 128, (5, 3))
    expected = fp.values(*fp.affine(q, fp.quantize_batch_norm(norm, chosen)))
    np.testing.assert_array_equal(layer(q.astype(np.float32)), expected)


def test_another_axis(rng):
    layer = build(random_weights(rng), (2, CHANNELS, 4, 4), axis=1)
    layer.quantize()
    q = rng.integers(-127, 128, (2, CHANNELS, 4, 4))
    expected = fp.values(*fp.affine(np.moveaxis(q, 1, -1), layer.integers()))
    np.testing.assert_array_equal(layer(q.astype(np.float32)), np.moveaxis(expected, -1, 1))


def test_it_becomes_a_float_layer_again(rng):
    layer = build(random_weights(rng))
    x = rng.integers(-127, 128, (5, 3)).astype(np.float32)
    before = layer(x).numpy()
    layer.quantize()
    assert np.any(layer(x).numpy() != before)
    layer.dequantize()
    np.testing.assert_array_equal(layer(x), before)


# ---- Gradients ------------------------------------------------------------------------------------------------------


def surrogate(layer, x, training):
    """What the gradient is that of: the same without rounding, in float64; saturated s and t are constants."""

    def f(gamma, beta):
        mean, variance = (x.mean(0), x.var(0)) if training else layer.get_weights()[2:]
        s = gamma / np.sqrt(np.asarray(variance, np.float64) + layer.epsilon)
        return s * (x - mean) + beta

    return f


@pytest.mark.parametrize("variables", ["folded", "paper"])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_those_of_the_surrogate(rng, variables, training):
    layer = build(random_weights(rng), variables=variables)
    layer.quantize()
    x = rng.integers(-20, 21, (6, CHANNELS)).astype(np.float64)
    upstream = rng.normal(size=x.shape)
    with tf.GradientTape() as tape:
        y = layer(tf.constant(x), training=training)
    found = tape.gradient(y, layer.trainable_variables, output_gradients=tf.constant(upstream))
    gamma, beta = (w.astype(np.float64) for w in layer.get_weights()[:2])
    f = surrogate(layer, x, training)
    for place, gradient in enumerate(found):
        for c in range(CHANNELS):
            d = np.zeros((2, CHANNELS))
            d[place, c] = 1e-4
            difference = (f(gamma + d[0], beta + d[1]) - f(gamma - d[0], beta - d[1])) / 2e-4
            # with "paper", sigma and mean are those on their grid: half of 2^-10 away, sigma being 7 or more
            np.testing.assert_allclose(gradient[c], np.sum(upstream * difference), rtol=1e-3, atol=1e-3)


def test_the_gradient_of_the_input_is_the_multiplier(rng):
    layer = build(random_weights(rng))
    layer.quantize()
    x = tf.constant(rng.integers(-127, 128, (2, CHANNELS)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    integers = layer.integers()
    np.testing.assert_array_equal(
        tape.gradient(y, x),
        np.broadcast_to(integers.multiplier / 2**integers.fraction_bits, x.shape).astype(np.float32),
    )


@pytest.mark.parametrize("variables", ["folded", "paper"])
def test_in_training_the_gradient_of_the_input_goes_through_the_statistics(rng, variables):
    layer = build(random_weights(rng), variables=variables)
    layer.quantize()
    x = rng.integers(-20, 21, (6, CHANNELS)).astype(np.float64)
    upstream = rng.normal(size=x.shape)
    gamma, beta = (w.astype(np.float64) for w in layer.get_weights()[:2])
    point = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(point)
        y = layer(point, training=True)
    found = tape.gradient(y, point, output_gradients=tf.constant(upstream)).numpy()
    expected = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        d = np.zeros(x.shape)
        d[place] = 1e-4
        above, below = (surrogate(layer, x + e, training=True)(gamma, beta) for e in (d, -d))
        expected[place] = np.sum(upstream * (above - below)) / 2e-4
    # As above; the direct part alone, s times upstream, is as large as the sum.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    direct = layer.gamma / np.sqrt(x.var(0) + layer.epsilon) * upstream
    assert np.abs(direct - expected).max() > 0.05 * np.abs(expected).max()


def test_saturated_multipliers_get_no_gradient():
    layer = build(np.array([[3.0, 0.5, 0.5], [0.0, 0, 0], [0.0, 0, 0], [1.0, 1, 1]]), epsilon=0.0)
    layer.quantize(fp.AffineFormat(15))
    with tf.GradientTape() as tape:
        y = layer(tf.ones((1, 3)))
    assert tape.gradient(y, layer.gamma).numpy().tolist() == [0, 1, 1]


# ---- Training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_training_uses_and_updates_statistics_as_keras_does(rng, late):
    weights, x = random_weights(rng), rng.integers(-127, 128, (40, CHANNELS)).astype(np.float32)
    plain = keras.layers.BatchNormalization(momentum=0.9)
    plain.build(x.shape)
    plain.set_weights(weights)
    expected = plain(x, training=True).numpy()
    layer = build(weights, momentum=0.9)
    chosen = layer.quantize()
    y = layer(x, training=tf.constant(True) if late else True).numpy()
    assert np.abs(y - expected).max() < 128 * 2.0**-chosen.fraction_bits
    for a, b in zip(layer.get_weights(), plain.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    before = layer.get_weights()
    layer(x, training=tf.constant(False) if late else False)
    for a, b in zip(layer.get_weights(), before):
        np.testing.assert_array_equal(a, b)


def test_frozen_it_computes_the_same_in_training(rng):
    x = rng.integers(-127, 128, (16, CHANNELS)).astype(np.float32)
    model = keras.Sequential([keras.layers.InputLayer((CHANNELS,)), FixedPointBatchNormalization(name="norm")])
    layer = model.get_layer("norm")
    layer.set_weights(random_weights(rng))
    layer.quantize()
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    before = layer.get_weights()
    model.add(keras.layers.Dense(1))
    model.compile("adam", "mse")
    model.fit(x, np.ones((16, 1)), epochs=2, verbose=0)
    for a, b in zip(layer.get_weights(), before):
        np.testing.assert_array_equal(a, b)


def test_unfrozen_it_trains(rng):
    x = rng.integers(-127, 128, (64, CHANNELS)).astype(np.float32)
    model = keras.Sequential([keras.layers.InputLayer((CHANNELS,)), FixedPointBatchNormalization(name="norm")])
    model.get_layer("norm").quantize()
    model.compile(keras.optimizers.Adam(0.05), "mse")
    target = (x - x.mean(0)) / x.std(0) * [0.5, -0.5, 0.25] + [0.1, 0.2, 0.3]
    losses = model.fit(x, target, epochs=60, batch_size=64, verbose=0).history["loss"]
    assert losses[-1] < 0.01 * losses[0]


# ---- Configs and errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".h5", ".keras", ""])
@pytest.mark.parametrize("variables", ["folded", "paper"])
def test_saved_and_loaded(rng, tmp_path, suffix, variables):
    x = rng.integers(-127, 128, (5, CHANNELS)).astype(np.float32)
    model = keras.Sequential(
        [keras.layers.InputLayer((CHANNELS,)), FixedPointBatchNormalization(variables=variables, name="norm")]
    )
    layer = model.get_layer("norm")
    layer.set_weights(random_weights(rng))
    layer.quantize(granularity="channel" if variables == "folded" else "layer")
    layer.trainable = False
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}", compile=False)
    again = loaded.get_layer("norm")
    assert type(again) is FixedPointBatchNormalization
    assert again.format == layer.format and not again.trainable
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize(
    "arguments",
    [
        {"variables": "all"},
        {"fraction_bits": 16},
        {"fraction_bits": 1.0},
        {"fraction_bits": 3, "variable_fraction_bits": 3},
        {"variables": "paper", "fraction_bits": 3},
        {"variables": "paper", "variable_fraction_bits": 3},
        {"fraction_bits": [3, 25]},
        {"variables": "paper", "fraction_bits": [3, 3], "variable_fraction_bits": 3},
        {"axis": [1, 2]},
        {"renorm": True},
        {"virtual_batch_size": 2},
    ],
)
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match="accepted|belongs to 'paper'"):
        FixedPointBatchNormalization(**arguments)


def test_what_cannot_be_quantized(rng):
    with pytest.raises(ValueError, match="batch norm 'a' is not built"):
        FixedPointBatchNormalization(name="a").quantize()
    layer = build(random_weights(rng))
    with pytest.raises(ValueError, match="batch norm 'norm' is not quantized"):
        layer.integers()
    layer.quantize()
    with pytest.raises(ValueError, match="was given a mask"):
        layer(np.zeros((2, CHANNELS)), mask=np.ones((2,), bool))
    with pytest.raises(ValueError, match="batch norm 'norm' was given 2 fraction bits"):
        layer.quantize(fp.AffineFormat([1, 2]))
    weights = layer.get_weights()
    for place, value, message in ((2, np.nan, "a moving mean that is not finite"), (3, -1, "a negative moving var")):
        wrong = [w.copy() for w in weights]
        wrong[place][0] = value
        layer.set_weights(wrong)
        with pytest.raises(ValueError, match=f"batch norm 'norm' has {message}"):
            layer.quantize()
