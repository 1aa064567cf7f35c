"""Binary layers with inputs of levels m / n, 1 to 3 bits: the integer sum of m w is clipped, 1 / n multiplies it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keras_support import assert_outputs_and_gradients_of

from larq_clip import arithmetic, layers
from larq_clip._keras import keras, lq, tf
from larq_clip.models import accumulator_clips, binary_layers, clip_model
from larq_clip.quantizers import AccumulatorClip

SHAPE = (5, 6, 8)


def quantizer(n):
    return lq.quantizers.DoReFa(n.bit_length())


def one_layer(n, kernel_quantizer="magnitude_aware_sign", kind="conv", seed=5, **arguments):
    """A model of one layer of Larq, with random weights."""
    keras.utils.set_random_seed(4)
    image = keras.Input(SHAPE)
    arguments = {"use_bias": False, "kernel_quantizer": kernel_quantizer, "input_quantizer": quantizer(n), **arguments}
    layer = lq.layers.QuantDense(7, **arguments) if kind == "dense" else lq.layers.QuantConv2D(8, 3, **arguments)
    model = keras.Model(image, layer(image))
    layer.set_weights([np.random.default_rng(seed).normal(0, 0.7, w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(6).normal(0.5, 0.7, size=(3, *SHAPE)).astype(np.float32)


# ---- The integers ---------------------------------------------------------------------------------------------------


@st.composite
def sums(draw):
    """Levels, signs and the window of a convolution; among them images of all 0 and all n, kernels of one sign."""
    n = draw(st.sampled_from([1, 3, 7]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    groups = draw(st.sampled_from([1, 2]))
    height, width, per_group = (draw(st.integers(1, limit)) for limit in (4, 4, 40))
    kernel, stride = draw(st.sampled_from([(1, 1), (2, 1), (3, 2), (3, 1)]))
    m = rng.integers(0, n + 1, (2, height, width, groups * per_group))
    m[0] = draw(st.sampled_from([0, n, m[0]])) if draw(st.booleans()) else m[0]
    w = rng.integers(0, 2, (2 * groups, kernel, kernel, per_group)).astype(np.uint8)
    w[0] = draw(st.integers(0, 1))
    axes = tuple(arithmetic.window_axis(size, kernel, stride, padding="same") for size in (height, width))
    return n, m, w, axes, draw(st.sampled_from([0, n])), groups


@settings(max_examples=60, deadline=None)
@given(sums())
def test_a_sum_of_levels_is_one_of_bit_planes(case):
    n, m, w, axes, pad_level, groups = case
    a = arithmetic.level_conv2d(m, w, axes, pad_level, groups)
    taps = np.prod(w.shape[1:])
    assert np.abs(a).max() <= n * taps
    doubled = n * arithmetic.bits_to_signs(w, np.int64).sum((1, 2, 3))
    for j in range(n.bit_length()):
        plane = (1 - (m >> j & 1)).astype(np.uint8)
        doubled = doubled + (arithmetic.binary_conv2d(plane, w, axes, 1 if pad_level else -1, groups) << j)
    np.testing.assert_array_equal(doubled, 2 * a)
    if np.all(m[0] == n) and pad_level == n and np.all(w[0] == 0):
        assert np.all(a[0, ..., 0] == n * taps)


@settings(max_examples=40, deadline=None)
@given(sums(), st.sampled_from([2, 4, 8, 16]), st.sampled_from([0.5, 1, 2, 4, 32]), st.booleans())
@example(
    (3, np.full((1, 1, 1, 43), 3), np.zeros((2, 1, 1, 43), np.uint8), (arithmetic.window_axis(1, 1),) * 2, 0, 1),
    8,
    1,
    True,
)
@example(
    (1, np.ones((1, 1, 1, 127), int), np.ones((2, 1, 1, 127), np.uint8), (arithmetic.window_axis(1, 1),) * 2, 0, 1),
    8,
    1,
    False,
)
def test_layers_compute_what_the_arithmetic_does(case, bits, step, scaled):
    n, m, w, axes, pad_level, groups = case
    layer = layers.QuantConv2D(
        len(w),
        w.shape[1],
        strides=axes[0].stride,
        padding="same",
        pad_values=float(pad_level > 0),
        groups=groups,
        input_quantizer=quantizer(n),
        kernel_quantizer="magnitude_aware_sign" if scaled else "ste_sign",
        accumulator_quantizer=AccumulatorClip(bits, step),
        scaled_kernel=scaled,
        input_levels=n,
        use_bias=False,
    )
    x = (m / n).astype(np.float32)
    layer.build(x.shape)
    kernel = np.moveaxis(0.7 * arithmetic.bits_to_signs(w, np.float32), 0, -1)
    layer.set_weights([kernel])
    a = arithmetic.level_conv2d(m, w, axes, pad_level, groups)
    q = arithmetic.clip_accumulator(a, bits, step).astype(np.float32)
    unit = np.float32(1) / np.float32(n)
    if scaled:
        unit = unit * layer.kernel_scale()
    np.testing.assert_array_equal(layer.accumulator_scale(), np.broadcast_to(unit, (len(w),)))
    np.testing.assert_array_equal(layer(x), unit * (np.float32(step) * q))

    if layer.has_scale:
        layer.quantize_scale()
        integers, fraction_bits = layer.scale_integers(), np.asarray(layer.scale_fraction_bits)
        found = np.ldexp(np.asarray(layer(x), np.float64), fraction_bits)
        np.testing.assert_array_equal(found, integers * (step * q.astype(np.float64)))
        assert np.allclose(
            np.ldexp(integers.astype(float), -fraction_bits), unit, rtol=2.0 ** -min(14, 23 - bits), atol=0
        )


# ---- Models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_quantizer", ["ste_sign", "magnitude_aware_sign", lq.quantizers.DoReFa(1, "weights")])
@pytest.mark.parametrize(
    "n, arguments",
    [(1, {"kind": "dense"}), (3, {"padding": "same", "pad_values": 1.0, "strides": 2}), (7, {"groups": 2})],
    ids=["dense", "padded", "groups"],
)
def test_without_saturation_outputs_and_gradients_are_larqs(n, kernel_quantizer, arguments, images):
    model = one_layer(n, kernel_quantizer, **arguments)
    clipped = clip_model(model, step=1, bits=16)
    (layer,) = binary_layers(clipped)
    assert layer.input_levels == n and layer.scaled_kernel == (kernel_quantizer == "magnitude_aware_sign")
    assert_outputs_and_gradients_of(model, clipped, images)


def test_saturated_sums_have_no_gradient():
    """48 inputs of 1 = 3 / 3 reach 144 with a kernel of +1, beyond 127, and 0 with one of both signs."""
    model = one_layer(3, "ste_sign", kind="dense")
    (layer,) = binary_layers(model)
    image = keras.Input((48,))
    dense = lq.layers.QuantDense(2, input_quantizer=quantizer(3), kernel_quantizer="ste_sign", use_bias=False)
    model = clip_model(keras.Model(image, dense(image)))
    (layer,) = binary_layers(model)
    kernel = np.full((48, 2), 0.5)
    kernel[::2, 1] = -0.5
    layer.set_weights([kernel])
    with tf.GradientTape() as tape:
        y = model(np.ones((1, 48), np.float32), training=True)
    np.testing.assert_array_equal(y, np.float32(1) / np.float32(3) * np.array([[127, 0]], np.float32))
    (gradient,) = tape.gradient(y, model.trainable_variables)
    gradient = tf.convert_to_tensor(gradient).numpy()
    np.testing.assert_array_equal(gradient[:, 0], 0)
    np.testing.assert_allclose(gradient[:, 1], 1, rtol=2**-22)
    assert layer.accumulator_quantizer.saturation() == 0.5


def test_steps_are_chosen_of_integer_sums():
    """The largest |sum of m w| over the data decides, and sums that all are even by chance do not make the step 2."""
    model = one_layer(3, "ste_sign", kind="dense")
    x = np.full((1, *SHAPE), 2 / 3, np.float32)  # m = 2 everywhere: all sums are even
    kernel = np.ones((8, 7))
    model.layers[-1].set_weights([kernel])
    assert [c.step for c in accumulator_clips(clip_model(model, step="auto", calibration_data=x)).values()] == [1]
    wide = lq.layers.QuantDense(3, input_quantizer=quantizer(7), kernel_quantizer="ste_sign", use_bias=False)
    image = keras.Input((100,))
    model = keras.Model(image, wide(image))
    wide.set_weights([np.ones((100, 3))])
    clipped = clip_model(model, step="auto", calibration_data=np.ones((2, 100), np.float32))
    assert [c.step for c in accumulator_clips(clipped).values()] == [8]  # 700 <= 8 * 127


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_saves_and_loads(suffix, images, tmp_path):
    clipped = clip_model(one_layer(7))
    binary_layers(clipped)[0].quantize_scale()
    clipped.save(tmp_path / f"model.{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model.{suffix}")
    assert np.array_equal(loaded(images), clipped(images))
    assert loaded.layers[-1].input_levels == 7
    assert loaded.layers[-1].scale_fraction_bits == clipped.layers[-1].scale_fraction_bits


def test_compiled_functions_compute_the_same(images):
    clipped = clip_model(one_layer(3, "ste_sign"))
    for quantize_scale in (False, True):
        if quantize_scale:
            binary_layers(clipped)[0].quantize_scale()
        for jit in (False, True):
            compiled = tf.function(lambda x: clipped(x), jit_compile=jit)
            np.testing.assert_array_equal(compiled(tf.constant(images)), clipped(images))


def test_wrong_use():
    clip = {"accumulator_quantizer": "accumulator_clip"}
    with pytest.raises(ValueError, match=r"input_levels is 2; accepted are 1, 3, 7 \(inputs m / n"):
        layers.QuantConv2D(3, 3, input_levels=2, **clip)
    with pytest.raises(ValueError, match="input_levels=3 and .*; the second and third need the first"):
        layers.QuantDense(3, input_levels=3)
    with pytest.raises(ValueError, match="scale_fraction_bits=3; .* the fourth the second, or more levels than 1"):
        layers.QuantDense(3, input_levels=1, scale_fraction_bits=3, **clip)
    layer = layers.QuantConv2D(3, 3, input_levels=3, padding="same", pad_values=-1.0, name="conv", **clip)
    with pytest.raises(ValueError, match=r"'conv' has input_levels=3 and pad_values -1\.0; accepted are 0 and 1"):
        layer(np.zeros((1, 4, 4, 2), np.float32))
    layer = layers.QuantDense(3, input_levels=1, name="dense", **clip)
    with pytest.raises(ValueError, match="layer 'dense' is not built"):
        layer.accumulator_scale()
    layer(np.zeros((1, 4), np.float32))
    np.testing.assert_array_equal(layer.accumulator_scale(), np.ones(3, np.float32))
    with pytest.raises(ValueError, match="'dense' has neither a scaled_kernel nor several input_levels"):
        layer.quantize_scale()
