"""What quantize_model refuses."""

from __future__ import annotations

import numpy as np
import pytest
from quantize_support import SHAPE, binary, normal_images, trained, vgg

from larq_clip._keras import keras, tf
from larq_clip.models import clip_model, quantize_model, set_clipping

L = keras.layers


@pytest.fixture(scope="module")
def images():
    return normal_images()


def small(*stack, final=True):
    image = keras.Input(SHAPE, name="image")
    x = image
    for layer in (binary(8, "conv"), *stack, *([binary(8, "last")] if final else [])):
        x = layer(x)
    return trained(lambda: keras.Model(image, x, name="small"))


def clip_small(*stack, **arguments):
    return clip_model(small(*stack, **arguments))


def norm():
    return L.BatchNormalization(name="norm")


def without_statistics():
    model = clip_small(norm())
    model.get_layer("norm").set_weights([np.ones(8), np.zeros(8), np.zeros(8), np.ones(8)])
    return model


def not_finite():
    model = clip_small(norm())
    weights = model.get_layer("norm").get_weights()
    weights[0][3] = np.nan
    model.get_layer("norm").set_weights(weights)
    return model


def switched_off():
    model = clip_small(norm())
    set_clipping(model, False)
    return model


def constant_sum():
    image = keras.Input(SHAPE)
    return clip_model(keras.Model(image, binary(8, "conv")(image) + 1.0))


def fixed_already():
    return quantize_model(clip_small(norm()), np.zeros((1, *SHAPE), np.float32))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: small(norm()), "binary layer '(conv|last)' has no AccumulatorClip: clip before you quantize"),
        (switched_off, "the clip of binary layer '(conv|last)' is off"),
        (without_statistics, "batch norm 'norm' has no statistics"),
        (not_finite, "batch norm 'norm' has variables that are not finite"),
        (lambda: clip_small(L.UpSampling2D(2, name="up")), r"layer 'up' \(UpSampling2D\) cannot be quantized"),
        (lambda: clip_small(L.Lambda(tf.abs, name="any")), r"layer 'any' \(Lambda\) cannot .* code is none of those"),
        (lambda: clip_small(keras.Sequential([norm()], name="inner")), "layer 'inner' .* it is a nested model"),
        (constant_sum, "it has an operand that is no tensor of the model"),
        (fixed_already, r"layer '.*' \(.*\) cannot be quantized: it is in fixed point already"),
        (lambda: keras.Sequential([L.InputLayer(SHAPE), L.Conv2D(2, 1)], name="none"), "'none' has no binary layer"),
    ],
)
def test_models_that_cannot_be_quantized(images, make, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(make(), images)


def test_a_bias_is_refused_where_integers_are_needed(images):
    with_bias = binary(8, "biased", use_bias=True, bias_initializer="ones")
    image = keras.Input(SHAPE)
    x = binary(8, "conv")(image)
    model = clip_model(keras.Model(image, L.Add()([x, with_bias(x)])))
    with pytest.raises(ValueError, match="layer 'biased' .* its bias moves the output off the integers"):
        quantize_model(model, images)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"residual_bits": 12}, "residual_bits is 12; accepted are 8 and 16"),
        ({"float_layers": "bfloat16"}, "float_layers is 'bfloat16'; accepted are 'int8' and 'float32'"),
        ({"variables": "none"}, "variables is 'none'"),
        ({"granularity": "row"}, "granularity is 'row'"),
        ({"percentile": 0}, "percentile is 0"),
        ({"calibration_data": np.zeros((0, *SHAPE))}, "calibration_data is empty"),
        ({"calibration_data": []}, "calibration_data is empty"),
        ({"calibration_data": None}, "calibration_data is None"),
        ({"calibration_data": np.zeros((2, 4, 4, 3))}, r"accepted is \(None, 10, 10, 3\)"),
    ],
)
def test_wrong_arguments(images, arguments, message):
    model = clip_model(trained(vgg))
    with pytest.raises(ValueError, match=message):
        quantize_model(model, **{"calibration_data": images, **arguments})
