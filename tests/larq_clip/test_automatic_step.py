"""step="auto": the smallest step that covers the accumulators of calibration data."""

from __future__ import annotations

import numpy as np
import pytest
from clip_support import CLIPPED, sign, single, steps

from larq_clip import arithmetic
from larq_clip._keras import keras, lq, tf
from larq_clip.models import accumulator_clips, clip_model
from larq_clip.quantizers import AccumulatorClip


def expected_step(raw, bits, percentile):
    a = np.sort(np.abs(raw).ravel())
    needed = a[int(np.ceil(percentile / 100 * a.size)) - 1]
    step = 1 if np.any(raw % 2) else 2
    while step * arithmetic.clip_limit(bits) < needed:
        step *= 2
    return step


@pytest.mark.parametrize("arguments, step", [({}, 1), ({"percentile": 99.9}, 1), ({"percentile": 99.99}, 2)])
def test_auto_lets_one_accumulator_in_a_thousand_saturate(binary, arguments, step):
    images = np.ones((2000, 201), np.float32)
    images[1:, ::2] = -1  # the accumulator of the first image is 201, of all others -1
    layer = lq.layers.QuantDense(1, use_bias=False, kernel_initializer="ones", **binary)
    model = keras.Sequential([keras.layers.InputLayer(201), layer])
    (clip,) = accumulator_clips(clip_model(model, step="auto", calibration_data=images, **arguments)).values()
    assert clip.step == step


@pytest.mark.parametrize("bits, percentile", [(8, 99.99), (5, 99.99), (4, 100), (3, 50)])
def test_auto_is_the_smallest_step_that_covers_the_raw_accumulators(build_network, images, bits, percentile):
    model = build_network()
    raw = keras.Model(model.inputs, [model.get_layer(name).output for name in CLIPPED])(images)  # no bias, activation
    expected = {name: expected_step(a.numpy(), bits, percentile) for name, a in zip(CLIPPED, raw)}
    assert (max(expected.values()) > 2) == (bits < 8)
    copy = clip_model(model, bits, "auto", calibration_data=images, percentile=percentile)
    assert steps(copy) == expected


def test_auto_ignores_bias_and_activation():
    layer = lq.layers.QuantDense(
        2, **sign(), bias_initializer=keras.initializers.Constant(1e6), activation="relu", name="dense"
    )
    model = single(layer, (100,))
    layer.set_weights([-np.ones((100, 2)), np.full(2, 1e6)])
    assert steps(clip_model(model, 4, "auto", calibration_data=np.ones((3, 100)))) == {"dense": 16}  # 100 / 7
    assert steps(clip_model(model, 8, "auto", calibration_data=np.ones((3, 100)))) == {"dense": 2}  # even


def test_auto_accepts_every_kind_of_data(build_network, images, labels):
    model = build_network()
    expected = steps(clip_model(model, 4, "auto", calibration_data=images))
    assert min(expected.values()) > 1

    class Sequence(keras.utils.Sequence):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return images[8 * index : 8 * index + 8], labels[8 * index : 8 * index + 8]

    data = tf.data.Dataset.from_tensor_slices((images, labels))
    for calibration_data in (
        tf.constant(images),
        {"image": images},
        images.astype(np.float64),
        data.batch(5),
        data.map(lambda x, y: x).batch(16),
        data.map(lambda x, y: (x, y, 1.0)).batch(16),
        Sequence(),
        (images[i : i + 4] for i in range(0, 16, 4)),
        [images],
    ):
        copy = clip_model(model, 4, "auto", calibration_data=calibration_data)
        assert steps(copy) == expected


def test_auto_leaves_the_original_as_it_is(build_network, images):
    model = build_network()
    before = model.get_weights()
    copy = clip_model(model, 4, "auto", calibration_data=images, layers=["dense"])
    assert list(steps(copy)) == ["dense"]
    for weight, old, new in zip(model.get_weights(), before, copy.get_weights()):
        np.testing.assert_array_equal(weight, old)
        np.testing.assert_array_equal(new, old)
    assert isinstance(copy.get_layer("dense").accumulator_quantizer, AccumulatorClip)
