"""Binary layers whose kernels have a scale: its integers multiply the clipped accumulator, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import ops_of
from fixed_point_support import SHAPE, check, images, quantized

from larq_clip.converter import ir, keras_importer, pipeline, writer
from larq_clip.converter.ir import DType, Epilogue
from larq_clip.errors import ConversionError
from larq_clip.interpreter import Interpreter


def scaled_resnet():
    """Scaled convolutions before a sum, before a pool and a sign, with a relu, and a dense one before a sign."""
    from larq_clip._keras import keras, lq

    layers = keras.layers
    scaled = {
        "input_quantizer": "approx_sign",
        "kernel_quantizer": "magnitude_aware_sign",
        "use_bias": False,
    }
    image = keras.Input(SHAPE, name="image")
    x = layers.BatchNormalization(name="stem_norm")(layers.Conv2D(8, 3, padding="same", name="stem")(image))
    y = lq.layers.QuantConv2D(8, 3, padding="same", name="conv_0", **scaled)(x)
    x = layers.Add(name="add_0")([layers.BatchNormalization(name="norm_0")(y), x])
    y = lq.layers.QuantConv2D(8, 3, padding="same", pad_values=1.0, activation="relu", name="conv_1", **scaled)(x)
    x = layers.Add(name="add_1")([x, layers.BatchNormalization(name="norm_1")(y)])
    x = lq.layers.QuantConv2D(12, 3, strides=2, name="conv_2", **scaled)(x)
    x = layers.BatchNormalization(name="norm_2")(layers.MaxPooling2D(2, strides=1, name="pool")(x))
    x = lq.layers.QuantDense(10, name="dense", **scaled)(layers.Flatten(name="flatten")(x))
    x = layers.BatchNormalization(name="norm_3")(x)
    x = lq.layers.QuantDense(6, name="dense_2", **scaled)(x)
    return keras.Model(image, layers.BatchNormalization(name="norm_4")(x), name="scaled_resnet")


@pytest.fixture(scope="module")
def model():
    return quantized(scaled_resnet)


def test_quantized_scales_are_exact(model):
    lowered = check(model, images())
    convs = {op.name.split("+")[0]: op for op in ops_of(lowered, ir.BinaryConv2D)}
    # The sign behind the scale and the norm is a threshold of the clipped accumulator, in 8 bits.
    assert convs["conv_2"].epilogue is convs["dense"].epilogue is Epilogue.THRESHOLD
    assert {convs[name].thresholds.dtype for name in ("conv_2", "dense")} == {np.dtype(np.int8)}
    assert convs["conv_0"].epilogue is convs["conv_1"].epilogue is Epilogue.FIXED_POINT
    # Scale and norm are one multiplication, where no relu is between them.
    kinds = [[step.kind for step in convs[name].fixed_point.steps] for name in ("conv_0", "conv_1")]
    affine, add, relu = ir.StepKind.AFFINE, ir.StepKind.ADD, ir.StepKind.RELU
    assert kinds == [[affine, add], [affine, relu, affine, add]]
    assert not any(tensor.dtype is DType.FLOAT32 for name, tensor in lowered.tensors.items() if name.startswith("conv"))


def test_a_filter_of_zeros_gives_zeros():
    model = quantized(scaled_resnet)
    layer = model.get_layer("conv_1")
    kernel = layer.get_weights()[0]
    kernel[..., 3] = 0
    layer.set_weights([kernel])
    assert layer.scale_integers()[3] == 0
    check(model, images())


@pytest.mark.parametrize("quantize_scale", [False, True], ids=["float", "quantized"])
def test_clipped_models_multiply_in_float32(quantize_scale):
    """A model that is clipped and not quantized: the scale is a float multiplier, its signs thresholds all the same."""
    from larq_clip._keras import keras, lq
    from larq_clip.models import binary_layers, clip_model

    keras.utils.set_random_seed(2)
    image = keras.Input(SHAPE, name="image")
    scaled = {"input_quantizer": "ste_sign", "kernel_quantizer": "magnitude_aware_sign"}
    x = lq.layers.QuantConv2D(8, 3, use_bias=False, name="conv", **scaled)(image)
    x = keras.layers.BatchNormalization(beta_initializer="random_normal", name="norm")(x)
    x = lq.layers.QuantConv2D(6, 3, bias_initializer="random_normal", name="conv_2", **scaled)(x)
    model = clip_model(keras.Model(image, x), step=2)
    if quantize_scale:
        for layer in binary_layers(model):
            layer.quantize_scale()
    lowered = pipeline.lower(keras_importer.import_model(model))
    first, second = ops_of(lowered, ir.BinaryConv2D)
    assert first.epilogue is Epilogue.THRESHOLD and second.epilogue is Epilogue.AFFINE
    found = Interpreter(writer.write(lowered)).predict(images())
    np.testing.assert_array_equal(found, np.asarray(model(images(), training=False)))


def test_a_clip_that_is_switched_off_is_refused(model):
    clip = model.get_layer("conv_0").accumulator_quantizer
    clip.enabled = False
    try:
        with pytest.raises(ConversionError, match=r"layer 'conv_0' \(QuantConv2D\): its scale is quantized, but"):
            keras_importer.import_model(model)
    finally:
        clip.enabled = True
