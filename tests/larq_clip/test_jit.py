"""Compiled by XLA (``jit_compile=True``) every layer computes the same integers, and training does all that it did."""

from __future__ import annotations

import numpy as np
import pytest

from larq_clip import arithmetic, callbacks, fixed_point, layers, models
from larq_clip._keras import keras, tf


@pytest.fixture(scope="module")
def trained(build_network):
    """A clipped network, compiled with jit_compile=True and trained through both stages; history; traces."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((16, 6, 6, 8)).astype(np.float32), rng.integers(0, 10, 16)
    model = models.clip_model(build_network(), bits=5)
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
    traces = []

    class Traces(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            traces.append(self.model.train_tf_function.experimental_get_tracing_count())

    stages = callbacks.TwoStageClipping(1)
    before = model.get_weights()
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[stages, Traces()])
    changed = [np.any(a != b) for a, b in zip(before, model.get_weights())]
    return model, x, history.history, traces, changed


def test_training_follows_the_switch_without_a_retrace(trained):
    model, x, history, traces, changed = trained
    assert traces == [1, 1]
    assert all(changed)
    assert np.isnan(history["conv_2_saturation"][0]) and 0 < history["conv_2_saturation"][1] < 1
    clip = models.accumulator_clips(model)["conv_1"]
    assert clip._state.total.numpy() == 16 * 6 * 6 * 12


@pytest.mark.parametrize("clipped", [True, False])
def test_accumulators_are_the_same_integers(trained, clipped):
    model, x, *_ = trained
    models.set_clipping(model, clipped)
    for name in ("conv_1", "conv_2", "dense"):
        layer = model.get_layer(name)
        signs = tf.where(tf.random.stateless_uniform((16, *layer.input_shape[1:]), (1, 2)) < 0.4, -1.0, 1.0)
        expected = layer(signs).numpy()
        np.testing.assert_array_equal(tf.function(layer, jit_compile=True)(signs).numpy(), expected, err_msg=name)
        assert (np.abs(expected).max() == 15) == clipped, name
    models.set_clipping(model, True)


def jitted(layer, x):
    return tf.function(lambda x: layer(x, training=False), jit_compile=True)(x).numpy()


@pytest.mark.parametrize("variables", fixed_point.VARIABLES)
def test_batch_norms_are_the_same_fixed_point(variables, rng):
    channels = 64
    layer = layers.FixedPointBatchNormalization(variables=variables)
    layer.build((None, channels))
    layer.set_weights([rng.standard_normal(channels) * scale for scale in (1, 1, 9)] + [rng.random(channels) * 900])
    layer.quantize()
    x = rng.integers(-127, 128, (32, channels)).astype(np.float32)
    found = layer.integers()
    expected = np.ldexp(found.multiplier * x.astype(np.int64) + found.offset, -np.asarray(found.fraction_bits))
    np.testing.assert_array_equal(jitted(layer, x), expected)


def test_a_fused_multiply_add_does_not_move_a_tie():
    """gamma / sigma is -1/3, rounded, so beta - mu s is a tie, 2^-16, only where mu s is rounded to -1 before."""
    layer = layers.FixedPointBatchNormalization(epsilon=2.0**-10)
    layer.build((None, 1))
    tie = 2.0**-16 - 1
    layer.set_weights([np.array([value], np.float32) for value in (-1, tie, 3, 9 - 2.0**-10)])
    layer.quantize(fixed_point.AffineFormat(15, None))
    expected = int(np.floor((tie + 1) * 2**15 + 0.5))
    assert layer.integers().offset.item() == expected
    zero = np.zeros((1, 1), np.float32)
    assert layer(zero).numpy().item() * 2**15 == expected
    assert jitted(layer, zero).item() * 2**15 == expected


def test_steps_that_are_no_powers_of_two_divide_exactly(rng):
    """XLA multiplies by the reciprocal of a constant: at ties, (n + 1/2) step, that can be an integer less."""
    steps = np.array([49, 98, 103, 107, 161, 187, 197, 3]) * 2.0**-12
    layer = layers.Int8Dense(len(steps))
    layer.build((None, 254))
    kernel = ((np.arange(254) - 127)[:, None] + 0.5) * steps
    layer.set_weights([kernel.astype(np.float32), (99.5 * steps).astype(np.float32)])
    layer.quantize(0, steps.tolist())
    weights, bias = layer.integers()
    assert bias.tolist() == [100] * len(steps)
    x = np.eye(254, dtype=np.float32)
    expected = (np.asarray(weights.weights, np.int64) + bias) * steps
    np.testing.assert_array_equal(layer(x).numpy(), expected)
    np.testing.assert_array_equal(jitted(layer, x), expected)


def test_storage_sums_and_int8_layers(rng):
    x, y = (rng.standard_normal((4, 5, 5, 3)).astype(np.float32) for _ in range(2))
    storage = layers.StorageQuantizer(8, [4, 0, -1])
    np.testing.assert_array_equal(tf.function(storage, jit_compile=True)(8 * x), storage(8 * x))
    add = layers.Add(bits=8, fraction_bits=[3, 4, 5])
    np.testing.assert_array_equal(tf.function(add, jit_compile=True)([x, y]), add([x, y]))
    for layer in (layers.Int8Conv2D(4, 3, padding="same"), layers.Int8DepthwiseConv2D(3), layers.Int8Dense(4)):
        layer.build(x.shape)
        layer.quantize([4, 5, 6])
        np.testing.assert_array_equal(tf.function(layer, jit_compile=True)(x), layer(x), err_msg=layer.name)


def test_a_clip_rounds_half_up(rng):
    clip = layers.QuantDense(
        1, use_bias=False, accumulator_quantizer={"class_name": "AccumulatorClip", "config": {"step": 8}}
    )
    clip.build((None, 1))
    clip.set_weights([np.ones((1, 1), np.float32)])
    a = np.arange(-1100, 1101)
    expected = 8 * arithmetic.clip_accumulator(a, 8, 8).astype(np.int64)
    found = tf.function(clip, jit_compile=True)(a.astype(np.float32)[:, None])
    np.testing.assert_array_equal(found.numpy()[:, 0], expected)
