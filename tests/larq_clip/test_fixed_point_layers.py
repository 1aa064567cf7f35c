"""Stored tensors, exact sums and int8 layers in Keras against larq_clip.fixed_point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from larq_clip import arithmetic, layers
from larq_clip import fixed_point as fp
from larq_clip._keras import keras, tf

few = settings(max_examples=40, deadline=None)
formats = st.one_of(st.integers(-6, 16), st.lists(st.integers(-6, 16), min_size=3, max_size=3))


# ---- Stored tensors -------------------------------------------------------------------------------------------------


@few
@given(hnp.arrays(np.int64, (4, 3), elements=st.integers(-(2**40), 2**40)), formats, st.sampled_from([8, 16]))
def test_storage(v, bits, width):
    y = layers.StorageQuantizer(width, bits)(tf.constant(np.ldexp(v.astype(np.float64), -20)))
    assert y.dtype == tf.float32
    np.testing.assert_array_equal(y, fp.values(fp.store(v, 20, bits, width), bits))


def test_storage_passes_everything_until_it_has_fraction_bits(rng):
    x = rng.normal(size=(2, 3)).astype(np.float32)
    layer = layers.StorageQuantizer()
    np.testing.assert_array_equal(layer(x), x)
    layer.quantize(np.array([0, 1, 2]))
    assert layer.fraction_bits == [0, 1, 2] and layer.quantized
    assert np.any(layer(x) != x)
    layer.dequantize()
    np.testing.assert_array_equal(layer(x), x)


def test_the_gradient_of_storage_is_that_of_the_clip():
    x = tf.constant([[-127.5, 0.3], [127.0, 63.5], [127.1, 63.6]], tf.float64)
    layer = layers.StorageQuantizer(8, [0, 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    assert tape.gradient(y, x).numpy().tolist() == [[0, 1], [1, 1], [0, 0]]


# ---- Sums -----------------------------------------------------------------------------------------------------------


@few
@given(
    hnp.arrays(np.int64, (2, 2, 3), elements=st.integers(-(2**31), 2**31)),
    st.tuples(st.integers(-4, 15), st.integers(-4, 15)),
    formats,
    st.sampled_from([8, 16]),
)
def test_a_sum_is_exact_and_rounded_once(v, own, bits, width):
    terms = [tf.constant(fp.values(q, f)) for q, f in zip(v, own)]
    total, total_bits = fp.add(*zip(v, own))
    exact = layers.Add()(terms)
    assert exact.dtype == tf.float64
    np.testing.assert_array_equal(exact, fp.values(total, total_bits))
    stored = layers.Add(bits=width, fraction_bits=bits)(terms)
    assert stored.dtype == tf.float32
    np.testing.assert_array_equal(stored, fp.values(fp.store(total, total_bits, bits, width), bits))


def test_concatenated_channels_keep_their_formats(rng):
    a, b = rng.integers(-127, 128, (4, 2)), rng.integers(-127, 128, (4, 1))
    terms = [tf.constant(fp.values(a, [3, -1]), tf.float32), tf.constant(fp.values(b, 7))]
    expected = np.concatenate([fp.values(a, [3, -1]), fp.values(b, 7)], axis=1)
    np.testing.assert_array_equal(layers.Concatenate()(terms), expected)
    np.testing.assert_array_equal(layers.Concatenate(bits=8, fraction_bits=[3, -1, 7])(terms), expected)


def test_sign_before_rounding(rng):
    """The sign branch sees the exact sum, the shortcut branch the stored one."""
    x = keras.Input((3,))
    total = layers.Add(name="total")([x, layers.FixedPointBatchNormalization(name="norm")(x)])
    stored = layers.StorageQuantizer(fraction_bits=0, name="stored")(total)
    model = keras.Model(x, [total, stored])
    model.get_layer("norm").quantize()
    signs, shortcut = model(tf.constant([[-0.125, 0.125, -127.25]]))
    assert (signs.numpy() < 0).tolist() == [[True, False, True]]
    assert shortcut.numpy().tolist() == [[0, 0, -127]]


# ---- int8 layers ----------------------------------------------------------------------------------------------------

CONVOLUTIONS = [
    {"strides": 2, "padding": "same"},
    {"kernel_size": 1, "use_bias": False},
    {"groups": 2},
    {"dilation_rate": 2, "padding": "same", "activation": "relu"},
]


def randomize(layer, rng):
    layer.set_weights([rng.normal(0, 0.5, w.shape) for w in layer.weights])


def expected_convolution(layer, x, bits, groups=1):
    """The integers of a convolution, from the float kernel on, and their fraction bits."""
    kernel, *bias = (w.astype(np.float64) for w in layer.get_weights())
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    per_input = np.ldexp(1.0, -np.broadcast_to(bits, x.shape[-1]))
    out = kernel.shape[-1]
    w = np.moveaxis(kernel, -1, 0).copy()
    for c in range(out):
        first = c // (out // groups) * (x.shape[-1] // groups)
        w[c] *= per_input[first : first + w.shape[-1]]
    steps = fp.kernel_steps(np.abs(w).max((1, 2, 3)))
    integers = fp.quantize_bias(bias[0], steps) if bias else None
    axes = [
        arithmetic.window_axis(x.shape[1 + i], layer.kernel_size[i], layer.strides[i], layer.dilation_rate[i], p)
        for i, p in enumerate([layer.padding] * 2)
    ]
    return fp.int8_conv2d(x, fp.quantize_kernel(w, steps[:, None, None, None]), integers, tuple(axes), groups)


@pytest.mark.parametrize("bits", [5, [3, 7, -2, 5]])
@pytest.mark.parametrize("arguments", CONVOLUTIONS)
def test_convolution(rng, arguments, bits):
    layer = layers.Int8Conv2D(6, **{"kernel_size": 3, **arguments})
    x = rng.integers(-127, 128, (2, 7, 6, 4))
    layer.build(x.shape)
    randomize(layer, rng)
    layer.quantize(bits)
    expected = fp.values(*expected_convolution(layer, x, bits, layer.groups))
    if "activation" in arguments:
        expected = np.maximum(expected, 0)
    y = layer(tf.constant(fp.values(x, bits), tf.float32))
    assert y.dtype == tf.float64
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("bits", [5, [3, 7, -2, 5]])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolution(rng, multiplier, bits):
    layer = layers.Int8DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=multiplier)
    x = rng.integers(-127, 128, (2, 7, 6, 4))
    layer.build(x.shape)
    randomize(layer, rng)
    layer.quantize(bits)
    np.testing.assert_array_equal(layer(fp.values(x, bits)), fp.values(*expected_convolution(layer, x, bits, groups=4)))


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4)])
def test_dense(rng, shape):
    layer = layers.Int8Dense(6)
    x = rng.integers(-127, 128, shape)
    layer.build(x.shape)
    randomize(layer, rng)
    layer.quantize([1, 2, 3, 4])
    kernel, bias = layer.integers()
    expected = fp.values((x @ kernel.weights.astype(int) + bias) * kernel.mantissa, kernel.fraction_bits)
    np.testing.assert_array_equal(layer(fp.values(x, [1, 2, 3, 4])), expected)


def test_sums_beyond_float32_are_exact():
    layer = layers.Int8Dense(1, use_bias=False)
    layer.build((None, 4096))
    kernel = np.full((4096, 1), 127 / 128, np.float32)
    kernel[0] = 1 / 128
    layer.set_weights([kernel])
    layer.quantize(0)
    x = np.full((1, 4096), 127.0)
    assert layer(x).numpy() == (127 * 127 * 4095 + 127) / 128 > 2**24 / 128


def test_inputs_are_rounded_and_saturated(rng):
    layer = layers.Int8Dense(2)
    layer.build((None, 3))
    layer.quantize(2)
    x = rng.normal(0, 30, (20, 3))
    np.testing.assert_array_equal(layer(x), layer(fp.values(fp.store_reals(x, 2), 2)))


@pytest.mark.parametrize(
    "ours, plain",
    [
        (layers.Int8Conv2D(3, 2, activation="relu"), keras.layers.Conv2D(3, 2, activation="relu")),
        (layers.Int8DepthwiseConv2D(2), keras.layers.DepthwiseConv2D(2)),
        (layers.Int8Dense(3), keras.layers.Dense(3)),
    ],
)
def test_float_until_quantized_and_close_after(rng, ours, plain):
    x = rng.uniform(-1, 1, (2, 5, 5, 4)).astype(np.float32)
    for layer in (ours, plain):
        layer.build(x.shape)
    assert [w.name.split("/")[-1] for w in ours.weights] == [w.name.split("/")[-1] for w in plain.weights]
    randomize(plain, rng)
    ours.set_weights(plain.get_weights())
    expected = plain(x).numpy()
    np.testing.assert_array_equal(ours(x), expected)
    ours.quantize(7)
    assert 0 < np.abs(ours(x) - expected).max() < 0.05
    ours.dequantize()
    np.testing.assert_array_equal(ours(x), expected)


@pytest.mark.parametrize("bits", [7, [4, 7, 6, 5]])
def test_gradients_are_those_of_the_float_layer(rng, bits):
    """Rounding is the identity, so dy/dw = x and dy/dx = w, both rounded; beyond the range there is none."""
    layer = layers.Int8Dense(3)
    layer.build((None, 4))
    randomize(layer, rng)
    layer.quantize(bits)
    x = tf.constant(fp.values(rng.integers(-120, 121, (5, 4)), bits))
    upstream = rng.normal(size=(5, 3))
    x = tf.concat([x, [[1e3, 0, 0, 0]]], axis=0)
    upstream = np.concatenate([upstream, np.ones((1, 3))])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    found = tape.gradient(y, [x, *layer.weights], output_gradients=tf.constant(upstream))
    kernel, _ = layer.integers()
    effective = kernel.weights * np.array(layer.kernel_steps) * np.ldexp(1.0, np.broadcast_to(bits, 4))[:, None]
    stored = fp.values(fp.store_reals(x, bits), bits)
    expected = upstream @ effective.T
    expected[-1, 0] = 0
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)
    np.testing.assert_allclose(found[1], stored.T @ upstream, rtol=1e-6)
    np.testing.assert_allclose(found[2], upstream.sum(0), rtol=1e-6)
    layer.set_weights([w * 1.5 for w in layer.get_weights()])  # beyond the steps, for some
    with tf.GradientTape() as tape:
        y = layer(x)
    outside = np.abs(layer.kernel.numpy() * layer._input_steps((4, 3), bits)) > 127 * np.array(layer.kernel_steps)
    assert outside.any() and not outside.all()
    np.testing.assert_array_equal(tape.gradient(y, layer.kernel).numpy() == 0, outside)


def differences(f, x, upstream, step=1.0):
    """The gradient of sum(upstream f(x)) by central differences."""
    found = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        d = np.zeros(x.shape)
        d[place] = step
        found[place] = np.sum(upstream * (np.asarray(f(x + d)) - np.asarray(f(x - d)))) / (2 * step)
    return found


@pytest.mark.parametrize("bits", [5, [3, 7, -2, 5]])
@pytest.mark.parametrize(
    "ours, arguments",
    [
        (layers.Int8Conv2D, {"filters": 4, "kernel_size": 2, "strides": 2, "padding": "same", "groups": 2}),
        (layers.Int8DepthwiseConv2D, {"kernel_size": 2, "depth_multiplier": 2, "padding": "same"}),
    ],
)
def test_gradients_of_convolutions_are_finite_differences(rng, ours, arguments, bits):
    """Where nothing is rounded, the surrogate is the float convolution: linear, so differences are exact."""
    layer = ours(**arguments)
    plain = (keras.layers.Conv2D if ours is layers.Int8Conv2D else keras.layers.DepthwiseConv2D)(
        **arguments, dtype="float64"
    )
    x = fp.values(rng.integers(-126, 127, (2, 3, 3, 4)), bits)
    layer.build(x.shape)
    plain.build(x.shape)
    kernel, bias = layer.get_weights()
    integers = rng.integers(-126, 127, kernel.shape)
    integers[0, 0] = 127  # so that the step is the same for all
    per_input = np.ldexp(1.0, np.broadcast_to(bits, 4))
    kernel = integers / 128
    if ours is layers.Int8DepthwiseConv2D:
        kernel *= per_input[:, None]
    else:
        for c in range(kernel.shape[-1]):
            kernel[..., c] *= per_input[c // 2 * 2 :][:2]
    bias = rng.normal(size=bias.shape)
    layer.set_weights([kernel, bias])
    layer.quantize(bits)
    with tf.GradientTape() as tape:
        point = tf.constant(x)
        tape.watch(point)
        y = layer(point)
    upstream = rng.normal(size=y.shape)
    found = tape.gradient(y, [point, *layer.weights], output_gradients=tf.constant(upstream))

    def f(x, kernel, bias):
        plain.set_weights([kernel, bias])
        return plain(tf.constant(x))

    np.testing.assert_allclose(y, f(x, kernel, bias), rtol=0, atol=np.max(layer.kernel_steps))  # the bias is rounded
    for gradient, expected in zip(
        found,
        (
            differences(lambda v: f(v, kernel, bias), x, upstream),
            differences(lambda v: f(x, v, bias), kernel, upstream),
            differences(lambda v: f(x, kernel, v), bias, upstream),
        ),
    ):
        # Gradients of variables are float32.
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("stored", [{}, {"bits": 8, "fraction_bits": 3}])
@pytest.mark.parametrize(
    "ours, surrogate", [(layers.Add, np.add), (layers.Concatenate, lambda *v: np.concatenate(v, -1))]
)
def test_gradients_of_sums_and_concatenations_are_finite_differences(rng, ours, surrogate, stored):
    layer = ours(**stored)
    a, b = (tf.constant(rng.normal(size=(2, 3))) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        y = layer([a, b])
    upstream = rng.normal(size=y.shape)
    found = tape.gradient(y, [a, b], output_gradients=tf.constant(upstream))
    a, b = a.numpy(), b.numpy()
    rtol = 1e-6 if stored else 1e-12  # what is stored is float32
    np.testing.assert_allclose(found[0], differences(lambda v: surrogate(v, b), a, upstream), rtol=rtol)
    np.testing.assert_allclose(found[1], differences(lambda v: surrogate(a, v), b, upstream), rtol=rtol)


# ---- Configs and errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".h5", ".keras", ""])
def test_saved_and_loaded(rng, tmp_path, suffix):
    image = keras.Input((6, 6, 4))
    x = layers.Int8Conv2D(4, 3, padding="same", name="conv")(image)
    y = layers.Int8DepthwiseConv2D(3, padding="same", name="depthwise")(layers.StorageQuantizer(name="stored")(x))
    x = layers.Add(bits=16, name="sum")([x, y])
    x = layers.Concatenate(bits=8, name="both")([x, y])
    model = keras.Model(image, layers.Int8Dense(3, name="dense")(keras.layers.GlobalAveragePooling2D()(x)))
    for name, arguments in {
        "conv": (5,),
        "stored": ([3, 4, 5, 4],),
        "depthwise": ([3, 4, 5, 4],),
        "sum": (11,),
        "both": (list(range(2, 10)),),
        "dense": (list(range(2, 10)),),
    }.items():
        model.get_layer(name).quantize(*arguments)
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}", compile=False)
    for name in ("conv", "stored", "depthwise", "sum", "both", "dense"):
        assert type(loaded.get_layer(name)) is type(model.get_layer(name))
        assert loaded.get_layer(name).get_config() == model.get_layer(name).get_config()
    x = tf.constant(rng.normal(0, 2, (2, 6, 6, 4)), tf.float32)
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.StorageQuantizer(7), r"bits is 7; accepted are \[8, 16\]"),
        (lambda: layers.StorageQuantizer(None), "bits is None"),
        (lambda: layers.StorageQuantizer(fraction_bits=1.5), "fraction_bits is 1.5"),
        (lambda: layers.Add(bits=4), r"bits is 4; accepted are \[None, 8, 16\]"),
        (lambda: layers.Add(fraction_bits=4), "has bits=None, so it stores nothing"),
        (lambda: layers.Int8Dense(2, input_fraction_bits=2), "give both or none"),
        (lambda: layers.Int8Dense(1, input_fraction_bits=2, kernel_steps=[0.1]), "steps of a kernel must be"),
        (lambda: layers.Int8Dense(2, name="d").quantize(2), "layer 'd' is not built"),
        (lambda: layers.Int8Dense(2, name="d").integers(), "layer 'd' is not quantized"),
        (lambda: layers.Int8Dense(2, dtype="float16").build((1, 2)), "computes in float16"),
        (lambda: layers.Int8Conv2D(2, 1, data_format="channels_first").build((1, 2, 3, 3)), "accepted is NHWC"),
        (lambda: layers.StorageQuantizer(8, [1, 2])(np.zeros((1, 3))), "has 2 fraction bits, but its input 3 channels"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_formats_that_do_not_fit_the_layer():
    layer = layers.Int8Dense(2, name="d")
    layer.build((None, 3))
    with pytest.raises(ValueError, match="layer 'd' has 2 fraction bits, but its input 3 channels"):
        layer.quantize([1, 2])
    with pytest.raises(ValueError, match="kernel_steps of layer 'd' has 1 steps; accepted are 2"):
        layer.quantize(1, [0.5])
    wide = layers.Int8Dense(1, name="wide", kernel_initializer="zeros")
    wide.build((None, 140_000))
    with pytest.raises(ValueError, match="sums 140000 products of int8, which may not fit int32"):
        wide.quantize(0)
