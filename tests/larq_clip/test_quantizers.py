"""AccumulatorClip and FixedPoint: values, gradients, switch, counters, configs."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from larq_clip import arithmetic
from larq_clip._keras import keras, lq, tf
from larq_clip.quantizers import AccumulatorClip, FixedPoint, round_half_up


def gradient(quantizer, x):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantizer(x)
    return tape.gradient(y, x, output_gradients=tf.fill(x.shape, 3.0)).numpy() / 3


# ---- Rounding -------------------------------------------------------------------------------------------------------


def test_round_half_up_is_exact_where_adding_a_half_is_not():
    below_half = np.nextafter(np.float32(0.5), np.float32(0))
    x = np.array([below_half, 0.5, -0.5, -below_half, -0.0, 1.5, 2.5, -1.5, -2.5, 2**23 + 1, -(2**23) - 1, 8388607.5])
    expected = [0, 1, 0, 0, 0, 2, 3, -1, -2, 2**23 + 1, -(2**23) - 1, 8388608]
    np.testing.assert_array_equal(round_half_up(tf.constant(x, tf.float32)).numpy(), expected)
    assert math.floor(np.float32(below_half + np.float32(0.5))) == 1  # what is avoided


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**24), max_value=2.0**24))
def test_round_half_up_is_floor_of_x_plus_a_half(x):
    from fractions import Fraction

    assert float(round_half_up(tf.constant(x, tf.float32))) == math.floor(Fraction(x) + Fraction(1, 2))


# ---- AccumulatorClip ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("step", [0.5, 1, 2, 8, 64])
def test_clip_is_the_reference_times_the_step(bits, step):
    near = arithmetic.clip_limit(bits) * step
    around = [round(sign * near) + d for sign in (-1, 1) for d in range(-150, 151)]
    a = np.unique(np.concatenate([np.arange(-3000, 3001), around, [2**24 - 1, -(2**24) + 1]])).astype(np.int64)
    expected = arithmetic.clip_accumulator(a, bits, step) * step
    for dtype in (np.float32, np.float64):
        clipped = AccumulatorClip(bits, step)(tf.constant(a.astype(dtype)))
        assert clipped.dtype == dtype
        np.testing.assert_array_equal(clipped.numpy(), expected)


def test_clip_inside_a_compiled_function_is_the_same():
    a = np.arange(-2000, 2001)
    clip = AccumulatorClip(step=4)
    compiled = tf.function(clip, jit_compile=True)
    np.testing.assert_array_equal(
        compiled(tf.constant(a, tf.float32)).numpy(), arithmetic.clip_accumulator(a, 8, 4) * 4
    )


@pytest.mark.parametrize("bits, step", [(8, 1), (8, 2), (8, 8), (4, 1), (8, 0.5)])
def test_gradient_is_one_inside_the_range_and_zero_outside(bits, step):
    largest = arithmetic.clip_limit(bits) * step
    a = np.array([0, 1, largest - 1, largest, largest + step / 4, largest + 1, 1e6], np.float32)
    a = np.concatenate([a, -a])
    np.testing.assert_array_equal(gradient(AccumulatorClip(bits, step), a), (np.abs(a) <= largest).astype(np.float32))
    np.testing.assert_array_equal(gradient(AccumulatorClip(bits, step, enabled=False), a), np.ones_like(a))


def test_gradient_inside_a_function_follows_the_switch_without_retrace():
    clip = AccumulatorClip()
    clip.build(None)
    traces = []

    @tf.function
    def both(x):
        traces.append(1)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = clip(x)
        return y, tape.gradient(y, x)

    x = tf.constant([1.0, 127.0, 128.0, -300.0])
    for enabled in (True, False, True):
        clip.enabled = enabled
        y, dx = both(x)
        assert y.numpy().tolist() == ([1, 127, 127, -127] if enabled else x.numpy().tolist())
        assert dx.numpy().tolist() == ([1, 1, 0, 0] if enabled else [1, 1, 1, 1])
    assert len(traces) == 1


def test_switched_off_clip_passes_everything_unrounded():
    x = tf.constant([0.3, -1000.5, 3.0])
    np.testing.assert_array_equal(AccumulatorClip(step=8, enabled=False)(x), x)


def test_nan_stays_nan():
    assert np.isnan(AccumulatorClip()(tf.constant([np.nan])).numpy()).all()


def test_clip_has_no_weights_and_reports_its_precision():
    clip = AccumulatorClip(bits=5)
    clip(tf.zeros((2, 3)))
    assert clip.weights == [] and clip.variables == [] and clip.precision == 5
    assert isinstance(clip, lq.quantizers.Quantizer)


@pytest.mark.parametrize("bits", [1, 0, 17, -8, 8.0, "8", True, None])
def test_wrong_bits_are_refused(bits):
    with pytest.raises(ValueError, match=r"bits is .*; accepted are the integers from 2 to 16"):
        AccumulatorClip(bits=bits)


@pytest.mark.parametrize("step", [0, -1, 3, 1.5, float("nan"), float("inf"), "auto", True, None, 2.0**25, 2.0**-25])
def test_wrong_step_is_refused(step):
    with pytest.raises(ValueError, match=r"step is .*accepted are the powers of two"):
        AccumulatorClip(step=step)


@pytest.mark.parametrize("enabled", ["on", None, 2])
def test_wrong_switch_is_refused(enabled):
    with pytest.raises(ValueError, match="enabled is .*accepted are True and False"):
        AccumulatorClip(enabled=enabled)
    clip = AccumulatorClip()
    with pytest.raises(ValueError, match="enabled is"):
        clip.enabled = enabled
    assert clip.enabled is True


def test_switching_inside_a_function_is_refused():
    clip = AccumulatorClip(name="inner")

    @tf.function
    def switch():
        clip.enabled = False

    with pytest.raises(RuntimeError, match="'inner' was switched inside a tf.function"):
        switch()
    assert clip.enabled


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.int32])
def test_inexact_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match=r"accepted are float32 and float64"):
        AccumulatorClip()(tf.zeros((2,), dtype))


# ---- Saturation -----------------------------------------------------------------------------------------------------


def test_saturation_counts_training_with_the_clip_on_only():
    clip = AccumulatorClip(step=2)
    assert math.isnan(clip.saturation())
    clip.reset_saturation()  # before it is built: nothing to do
    x = tf.constant([[0.0, 254.0, -254.0, 255.0], [300.0, -256.0, 1.0, 2.0]])
    clip(x)
    clip(x, training=False)
    assert math.isnan(clip.saturation())
    clip(x, training=True)
    assert clip.saturation() == 3 / 8
    clip.enabled = False
    clip(x, training=True)
    assert clip.saturation() == 3 / 8
    clip.enabled = True
    clip(tf.zeros((8,)), training=tf.constant(True))
    clip(x, training=tf.constant(False))
    assert clip.saturation() == 3 / 16
    clip.reset_saturation()
    assert math.isnan(clip.saturation())


def test_saturation_is_the_share_without_gradient(rng):
    a = rng.integers(-600, 600, 5000).astype(np.float32)
    clip = AccumulatorClip(step=2)
    clip(tf.constant(a), training=True)
    assert clip.saturation() == np.mean(gradient(AccumulatorClip(step=2), a) == 0)


def test_saturation_adds_up_over_replicas():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        clip = AccumulatorClip()
        clip.build(None)

    @tf.function
    def step():
        strategy.run(lambda: clip(tf.constant([1.0, 200.0]), training=True))

    step()
    step()
    assert clip.saturation() == 0.5
    clip.reset_saturation()
    assert math.isnan(clip.saturation())


# ---- Strings and configs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identifier", ["accumulator_clip", "AccumulatorClip"])
def test_clip_by_name(identifier):
    clip = lq.quantizers.get(identifier)
    assert isinstance(clip, AccumulatorClip) and (clip.bits, clip.step, clip.enabled) == (8, 1, True)


def test_clip_by_config_with_arguments():
    clip = lq.quantizers.get({"class_name": "accumulator_clip", "config": {"bits": 6, "step": 4}})
    assert (clip.bits, clip.step) == (6, 4)


@pytest.mark.parametrize(
    "quantizer",
    [AccumulatorClip(6, np.float32(4), enabled=False, name="c"), AccumulatorClip(step=0.25), FixedPoint(6, 9)],
)
def test_config_round_trips(quantizer):
    import json

    config = quantizer.get_config()
    assert json.loads(json.dumps(config)) == config
    for again in (
        type(quantizer).from_config(config),
        lq.quantizers.get(lq.quantizers.serialize(quantizer)),
        lq.quantizers.get(lq.quantizers.serialize(quantizer, use_legacy_format=True)),
        copy.deepcopy(quantizer),
    ):
        assert type(again) is type(quantizer) and again is not quantizer
        assert again.get_config() == config


def test_config_holds_the_present_switch():
    clip = AccumulatorClip()
    clip(tf.zeros((1,)))
    clip.enabled = False
    assert clip.get_config()["enabled"] is False
    again = AccumulatorClip.from_config(clip.get_config())
    assert float(again(tf.constant([500.0]))[0]) == 500
    again.enabled = True
    assert (again.enabled, clip.enabled) == (True, False)


def test_deep_copy_of_a_clip_in_use_is_independent():
    clip = AccumulatorClip(3)
    x = tf.constant([9.0])
    clip(x, training=True)
    twin = copy.deepcopy(clip)
    twin.enabled = False
    assert (float(clip(x)[0]), float(twin(x)[0])) == (3, 9)


# ---- FixedPoint -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits, fraction_bits", [(8, 7), (8, 0), (2, 1), (16, 24), (5, 3)])
def test_fixed_point_values(bits, fraction_bits, rng):
    scale = 2.0**-fraction_bits
    limit = 2 ** (bits - 1) - 1
    w = np.concatenate([rng.uniform(-1.2, 1.2, 2000) * limit * scale, np.arange(-limit - 3, limit + 4) / 2 * scale])
    w = w.astype(np.float32)
    expected = np.clip(np.floor(w.astype(np.float64) / scale + 0.5), -limit, limit) * scale
    q = FixedPoint(bits, fraction_bits)(tf.constant(w)).numpy()
    np.testing.assert_array_equal(q, expected)
    np.testing.assert_array_equal(FixedPoint(bits, fraction_bits)(tf.constant(q)).numpy(), q)


def test_fixed_point_gradient():
    w = np.array([0, 0.3, -0.9, 127 / 128, -127 / 128, 0.9922, 1, -1, 5], np.float32)
    np.testing.assert_array_equal(gradient(FixedPoint(), w), [1, 1, 1, 1, 1, 0, 0, 0, 0])


def test_fixed_point_sums_do_not_depend_on_the_order(rng):
    terms = 518
    w = FixedPoint()(tf.constant(rng.uniform(-1, 1, terms), tf.float32)).numpy()
    x = (rng.integers(0, 256, terms) / 256).astype(np.float32)
    exact = float(w.astype(np.float64) @ x)
    for _ in range(20):
        order = rng.permutation(terms)
        total = np.float32(0)
        for product in (w * x)[order]:
            total += product
        assert total == exact


def test_fixed_point_quantizes_the_kernel_of_a_layer():
    layer = lq.layers.QuantDense(4, kernel_quantizer="fixed_point", kernel_initializer=keras.initializers.Constant(0.3))
    out = layer(tf.ones((1, 2)))
    np.testing.assert_array_equal(out, np.full((1, 4), 2 * 38 / 128))
    assert layer.kernel.precision == 8


@pytest.mark.parametrize(
    "arguments, message", [({"bits": 1}, "bits is 1"), ({"fraction_bits": -1}, "fraction_bits is -1; .* 0 to 24")]
)
def test_fixed_point_refuses_wrong_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        FixedPoint(**arguments)
