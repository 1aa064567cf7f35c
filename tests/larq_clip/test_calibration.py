"""step="auto": what the accumulators' parity and a relu behind them allow."""

from __future__ import annotations

import numpy as np
import pytest

from larq_clip._calibration import feeds_relu_only
from larq_clip._keras import keras, lq
from larq_clip.models import accumulator_clips, clip_model

L = keras.layers
SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}


def dense(units=2, **arguments):
    return lq.layers.QuantDense(units, name="dense", **{**SIGNS, "use_bias": False, **arguments})


def model_of(*layers, inputs=401):
    return keras.Sequential([L.InputLayer(inputs), *layers])


def step_of(model, images):
    return accumulator_clips(clip_model(model, step="auto", calibration_data=images))["dense"].step


def images_with_accumulators(*accumulators, inputs=401):
    """Images of -1 and +1; behind weights of +1 their accumulators are these."""
    images = np.ones((len(accumulators), inputs), np.float32)
    for image, a in zip(images, accumulators):
        image[: (inputs - a) // 2] = -1
    return images


def all_plus(model):
    model.get_layer("dense").set_weights([np.ones(w.shape) for w in model.get_layer("dense").get_weights()])
    return model


@pytest.mark.parametrize("inputs, accumulators, step", [(400, (0, 100), 2), (401, (1, 101), 1), (402, (2, 256), 4)])
def test_even_accumulators_have_at_least_step_2(inputs, accumulators, step):
    model = all_plus(model_of(dense(), inputs=inputs))
    images = images_with_accumulators(*accumulators, inputs=inputs)
    copy = clip_model(model, step="auto", calibration_data=images)
    assert accumulator_clips(copy)["dense"].step == step
    if step == 2:  # nothing was rounded
        np.testing.assert_array_equal(copy(images), model(images))


def test_odd_border_pixels_keep_step_1():
    # Padding with 0 leaves 2 x 2 of 3 x 3 taps at a corner, 9 inside: with 1 channel odd inside, even at the border.
    convolution = lq.layers.QuantConv2D(1, 3, padding="same", use_bias=False, name="dense", **SIGNS)
    model = keras.Sequential([L.InputLayer((4, 4, 1)), convolution])
    assert step_of(model, np.ones((1, 4, 4, 1), np.float32)) == 1


def test_a_step_for_the_side_that_a_relu_keeps():
    images = images_with_accumulators(-401, -301, 101)
    for layers, step in (
        ((dense(), L.ReLU()), 1),
        ((dense(), L.Activation("relu")), 1),
        ((dense(activation="relu"), L.BatchNormalization()), 1),
        ((dense(), L.BatchNormalization(), L.ReLU()), 4),
        ((dense(), L.ReLU(negative_slope=0.1)), 4),
        ((dense(use_bias=True), L.ReLU()), 4),
        ((dense(),), 4),
    ):
        model = all_plus(model_of(*layers))
        assert step_of(model, images) == step, [layer.name for layer in layers]
        if step == 1:
            copy = clip_model(model, step="auto", calibration_data=images)
            np.testing.assert_array_equal(copy(images), model(images))
    # Nothing is lost on the other side either: a larger positive accumulator asks for a larger step.
    assert step_of(all_plus(model_of(dense(), L.ReLU())), images_with_accumulators(-401, 201)) == 2


def test_every_consumer_must_be_a_relu():
    image = keras.Input((401,))
    layer = dense()
    x = layer(image)
    y = L.ReLU()(x)
    assert feeds_relu_only(keras.Model(image, y), layer)
    assert not feeds_relu_only(keras.Model(image, [y, x]), layer)
    assert not feeds_relu_only(keras.Model(image, L.Add()([y, x])), layer)
    again = layer(L.Reshape((401,))(image))
    assert not feeds_relu_only(keras.Model(image, [y, L.BatchNormalization()(again)]), layer)
    assert feeds_relu_only(keras.Model(image, [y, L.Activation("relu")(again)]), layer)


def test_an_output_of_a_nested_model_may_be_seen_anywhere():
    inner = model_of(dense())
    outer = model_of(inner, L.ReLU())
    assert not feeds_relu_only(outer, inner.get_layer("dense"))
    whole = model_of(dense(), L.ReLU())
    assert feeds_relu_only(model_of(whole, L.Dense(1)), whole.get_layer("dense"))
