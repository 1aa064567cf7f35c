"""Binary layers whose kernels have a scale per filter: the integer accumulator is clipped, the scale multiplies it."""

from __future__ import annotations

import numpy as np
import pytest
from keras_support import assert_outputs_and_gradients_of

from larq_clip import arithmetic, layers
from larq_clip._keras import keras, lq, tf
from larq_clip.models import binary_layers, clip_model
from larq_clip.quantizers import AccumulatorClip

SHAPE = (5, 6, 8)


def weight_scale(x):
    """XNOR-Net's: unlike magnitude_aware_sign's, its scale has a gradient."""
    x = tf.clip_by_value(x, -1, 1)
    axes = list(range(x.shape.rank - 1))
    return tf.reduce_mean(tf.abs(x), axis=axes, keepdims=True) * lq.quantizers.ste_sign(x)


keras.utils.get_custom_objects()["weight_scale_of_tests"] = weight_scale
weight_scale.__name__ = "weight_scale_of_tests"

QUANTIZERS = ["magnitude_aware_sign", weight_scale]


def one_layer(quantizer, kind="conv", **arguments):
    keras.utils.set_random_seed(4)
    image = keras.Input(SHAPE)
    arguments = {
        "input_quantizer": "approx_sign",
        "kernel_quantizer": quantizer,
        "kernel_constraint": "weight_clip",
        "use_bias": False,
        **arguments,
    }
    layer = lq.layers.QuantDense(7, **arguments) if kind == "dense" else lq.layers.QuantConv2D(8, 3, **arguments)
    model = keras.Model(image, layer(image))
    layer.set_weights([np.random.default_rng(5).normal(0, 0.7, w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(6).normal(size=(3, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=["magnitude_aware_sign", "xnor"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"padding": "same", "pad_values": 1.0, "strides": 2}, {"groups": 2}, {"kind": "dense"}],
    ids=["valid", "padded", "groups", "dense"],
)
def test_without_saturation_outputs_and_gradients_are_larqs(quantizer, arguments, images):
    model = one_layer(quantizer, **arguments)
    clipped = clip_model(model)
    (layer,) = binary_layers(clipped)
    assert layer.scaled_kernel and layer.accumulator_quantizer.step == 1
    assert_outputs_and_gradients_of(model, clipped, images)


@pytest.mark.parametrize("bits, step", [(8, 1), (4, 2), (8, 4)])
def test_the_integer_accumulator_is_clipped(bits, step, images):
    clipped = clip_model(one_layer("magnitude_aware_sign"), bits=bits, step=step)
    (layer,) = binary_layers(clipped)
    with lq.context.quantized_scope(False):
        kernel = layer.kernel.numpy()
    axes = tuple(arithmetic.window_axis(size, 3) for size in SHAPE[:2])
    w_bits = arithmetic.sign_bits(np.moveaxis(kernel, -1, 0))
    a = arithmetic.binary_conv2d(arithmetic.sign_bits(images), w_bits, axes, 0)
    c = step * arithmetic.clip_accumulator(a, bits, step)
    assert bits == 8 or np.any(c != a)
    assert np.array_equal(clipped(images), layer.kernel_scale() * c.astype(np.float32))

    layer.quantize_scale()
    integers, fraction_bits = layer.scale_integers(), np.asarray(layer.scale_fraction_bits)
    assert np.all((integers > 2**13) & (integers <= 2**14))  # 15 bits of 16: room to double
    assert np.allclose(np.ldexp(integers.astype(float), -fraction_bits), layer.kernel_scale(), rtol=2**-14, atol=0)
    q = np.ldexp(np.asarray(clipped(images), np.float64), fraction_bits)
    assert np.array_equal(q, integers.astype(np.float64) * c)


def test_a_wide_accumulator_leaves_fewer_bits_for_the_scale(images):
    clipped = clip_model(one_layer("magnitude_aware_sign"), bits=16)
    (layer,) = binary_layers(clipped)
    layer.quantize_scale()
    assert layer.scale_integers().max() <= 2**8


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=["magnitude_aware_sign", "xnor"])
def test_saves_and_loads(quantizer, suffix, images, tmp_path):
    clipped = clip_model(one_layer(quantizer))
    binary_layers(clipped)[0].quantize_scale()
    clipped.save(tmp_path / f"model.{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model.{suffix}")
    assert np.array_equal(loaded(images), clipped(images))
    assert loaded.layers[-1].scale_fraction_bits == clipped.layers[-1].scale_fraction_bits


def test_wrong_use():
    with pytest.raises(ValueError, match="scaled_kernel=True, .*; the second and third need the first"):
        layers.QuantConv2D(3, 3, scaled_kernel=True)
    with pytest.raises(ValueError, match="scale_fraction_bits=3; .* the fourth the second"):
        layers.QuantDense(3, accumulator_quantizer="accumulator_clip", scale_fraction_bits=3)
    with pytest.raises(ValueError, match="the function 'unheard_of', which Keras does not know"):
        layers.QuantDense(3, kernel_quantizer={"class_name": "function", "config": "unheard_of"})
    layer = layers.QuantDense(
        3, kernel_quantizer="ste_tern", accumulator_quantizer=AccumulatorClip(), scaled_kernel=True, name="tern"
    )
    with pytest.raises(ValueError, match="'tern' has scaled_kernel=True and built=False"):
        layer.kernel_scale()
    layer(np.zeros((1, 4), np.float32))
    layer.set_weights([np.array([[0.0, 1, 1]] * 2 + [[1.0, 1, 0]] * 2), np.zeros(3)])
    with pytest.raises(ValueError, match="of layer 'tern' does not give -s and \\+s"):
        layer.quantize_scale()
    layer.set_weights([np.ones((4, 3)), np.zeros(3)])
    with pytest.raises(ValueError, match="has 2 elements; 'tern' has 3 filters"):
        layer.quantize_scale([1, 2])
    with pytest.raises(ValueError, match="the scale of layer 'tern' is not quantized"):
        layer.scale_integers()
