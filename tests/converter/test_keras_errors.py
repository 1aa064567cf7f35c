"""What cannot be imported is an error that names the layer, its type, why, and what to do."""

from __future__ import annotations

import re

import numpy as np
import pytest

from larq_clip.errors import ConversionError, LarqClipError

BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}


@pytest.fixture(scope="module")
def keras():
    from larq_clip._keras import keras

    return keras


@pytest.fixture(scope="module")
def layers(keras):
    """Layers that cannot be imported, by a word: layer, input shape, and what the message says."""
    from larq_clip import layers as clipped
    from larq_clip._keras import lq, tf
    from larq_clip.quantizers import AccumulatorClip

    k, q = keras.layers, lq.layers

    def broken_norm():
        return k.BatchNormalization(gamma_initializer=keras.initializers.Constant(np.nan))

    def negative_sign(x):
        return tf.where(x > 0, tf.ones_like(x), -tf.ones_like(x))

    image = (6, 6, 4)
    return {
        "depthwise": (q.QuantDepthwiseConv2D(3), image, "QuantDepthwiseConv2D.*not supported; supported are .*Conv2D"),
        "conv1d": (k.Reshape((36, 4)), image, r"target_shape is \(36, 4\); accepted are 1 and 3 axes"),
        "lambda": (k.Lambda(lambda x: x + 1), image, "Lambda.*not supported"),
        "nested": (
            keras.Sequential([k.Dense(3)]),
            (4,),
            "models inside of models are not supported; apply its layers one by one",
        ),
        "subclass": (type("MyDense", (k.Dense,), {})(3), (4,), "MyDense.*not supported"),
        "tanh": (k.Activation("tanh"), image, "its activation is 'tanh'; accepted are 'linear', 'relu', 'softmax'"),
        "conv tanh": (k.Conv2D(3, 3, activation="tanh"), image, "its activation is 'tanh'"),
        "relu6": (k.ReLU(6.0), image, r"its max_value is 6\.0; accepted: None"),
        "leaky": (k.ReLU(negative_slope=0.5), image, "its negative_slope is"),
        "softmax axis": (k.Softmax(axis=1), image, "its axis is 1; accepted: -1 and 3"),
        "channels first": (k.Conv2D(3, 3, data_format="channels_first"), image, "channels_first.*use 'channels_last'"),
        "pool first": (k.MaxPooling2D(data_format="channels_first"), image, "channels_first"),
        "mean first": (k.GlobalAveragePooling2D("channels_first"), image, "channels_first"),
        "norm axis": (k.BatchNormalization(axis=1), image, r"its axis is \(1,\) of 4; normalize the last axis"),
        "norm batch": (k.BatchNormalization(virtual_batch_size=1), image, "virtual_batch_size is 1; leave it out"),
        "norm nan": (broken_norm(), image, "its gamma holds NaN or infinity"),
        "norm variance": (
            k.BatchNormalization(moving_variance_initializer=keras.initializers.Constant(-1)),
            image,
            "moving_variance plus epsilon is not positive",
        ),
        "half": (k.Dense(3, dtype="float16"), (4,), "it computes in float16; build it with dtype='float32'"),
        "double": (k.Dense(3, dtype="float64"), (4,), "it computes in float64"),
        "dorefa": (
            q.QuantConv2D(3, 3, input_quantizer="dorefa_quantizer", kernel_quantizer="ste_sign"),
            image,
            "input_quantizer.*produces values other than -1 and \\+1; accepted is a sign",
        ),
        "heaviside": (q.QuantDense(3, input_quantizer="ste_heaviside"), (4,), "produces values other than -1 and"),
        "wrong at zero": (
            q.QuantConv2D(3, 3, input_quantizer=negative_sign, kernel_quantizer="ste_sign"),
            image,
            r"'negative_sign' produces -1 at 0, where the sign is \+1; accepted is \+1 for x >= 0",
        ),
        "heaviside layer": (lq.quantizers.SteHeaviside(), image, "SteHeaviside.*not supported"),
        "pad values": (
            q.QuantConv2D(3, 3, padding="same", pad_values=0.5, **BINARY),
            image,
            r"its pad_values is 0\.5; accepted are 0, 1 and -1",
        ),
        "float pad values": (
            q.QuantConv2D(3, 3, padding="same", pad_values=1.0),
            image,
            r"its pad_values is 1\.0, and its input or kernel is not binary; use pad_values=0",
        ),
        "float groups": (k.Conv2D(4, 3, groups=2), image, "its groups is 2, and its input or kernel is not binary"),
        "float clip": (
            clipped.QuantConv2D(3, 3, accumulator_quantizer=AccumulatorClip()),
            image,
            "its accumulator is clipped, but its input or kernel is not binary",
        ),
        "other clip": (
            clipped.QuantConv2D(3, 3, accumulator_quantizer="ste_sign", **BINARY),
            image,
            "its accumulator_quantizer is a SteSign; accepted is larq_clip.quantizers.AccumulatorClip",
        ),
        "clip layer": (AccumulatorClip(), image, "AccumulatorClip.*not supported"),
    }


NAMES = (
    *("depthwise", "conv1d", "zero padding", "lambda", "nested", "subclass", "tanh", "conv tanh", "relu6", "leaky"),
    *(
        "softmax axis",
        "channels first",
        "pool first",
        "mean first",
        "norm axis",
        "norm batch",
        "norm nan",
        "norm variance",
        "half",
    ),
    *("double", "dorefa", "heaviside", "wrong at zero", "heaviside layer", "pad values", "float pad values"),
    *("float groups", "float clip", "other clip", "clip layer"),
)


def test_every_case_is_listed(layers):
    assert set(layers) == set(NAMES)


@pytest.mark.parametrize("case", NAMES)
def test_error_names_the_layer(keras, layers, case):
    from larq_clip.converter import convert_keras_model

    layer, shape, message = layers[case]
    model = keras.Sequential([keras.Input(shape), layer])
    with pytest.raises(ConversionError, match=message) as caught:
        convert_keras_model(model)
    text = str(caught.value)
    assert re.match(rf"layer '{layer.name}' \({type(layer).__name__}\): .+; .+", text), text
    assert "\n" not in text and isinstance(caught.value, LarqClipError)


def test_models_that_are_no_graph(keras):
    from larq_clip.converter import convert_keras_model

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ConversionError, match="use the functional API"):
        convert_keras_model(Subclassed())
    with pytest.raises(ConversionError, match="give its first layer an input_shape"):
        convert_keras_model(keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(ConversionError, match="the model is a builtins.str"):
        convert_keras_model("model.h5")


@pytest.mark.parametrize("shape", [(28, 28), (None, None, 3), (2, 2, 2, 2)])
def test_input_shapes(keras, shape):
    from larq_clip.converter import convert_keras_model

    model = keras.Sequential([keras.Input(shape, name="image"), keras.layers.ReLU()])
    with pytest.raises(ConversionError, match=r"input 'image' has shape .*accepted are .*with fixed numbers"):
        convert_keras_model(model)


def test_input_dtype(keras):
    from larq_clip.converter import convert_keras_model

    model = keras.Sequential([keras.Input((4,), dtype="int32", name="image"), keras.layers.Flatten()])
    with pytest.raises(ConversionError, match="input 'image' is int32; accepted is float32"):
        convert_keras_model(model)


def test_output_that_is_the_input(keras):
    from larq_clip.converter import convert_keras_model

    x = keras.Input((4,))
    with pytest.raises(ConversionError, match="its output is its input"):
        convert_keras_model(keras.Model(x, keras.layers.Dropout(0.5)(x)))


def test_several_inputs_of_a_layer(keras):
    from larq_clip.converter import convert_keras_model

    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Add(name="sum")([keras.layers.ReLU()(x), x]))
    with pytest.raises(ConversionError, match=r"layer 'sum' \(Add\): sums and concatenations of float32"):
        convert_keras_model(model)
    model = keras.Model(x, keras.layers.Activation("linear", name="both")([keras.layers.ReLU()(x), x]))
    with pytest.raises(ConversionError, match=r"layer 'both' \(Activation\): it has 2 inputs and 2 outputs; give it"):
        convert_keras_model(model)


def test_training_mode_in_predict(keras):
    from larq_clip.converter import convert_keras_model

    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.BatchNormalization(name="norm")(x, training=True))
    with pytest.raises(ConversionError, match=r"layer 'norm' .*called with training=True"):
        convert_keras_model(model)


def test_models_that_do_not_fit_the_format(keras, monkeypatch):
    from larq_clip.converter import convert_keras_model, spec

    monkeypatch.setattr(spec, "MAX_AXIS", 8)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(9, name="wide")], name="m")
    with pytest.raises(
        ConversionError, match=r"model 'm' does not fit the file format: tensor 'wide' has shape \(9,\)"
    ):
        convert_keras_model(model)


def test_importing_the_converter_loads_no_tensorflow():
    import subprocess
    import sys

    code = (
        "import sys, larq_clip.converter, larq_clip.converter.pipeline, larq_clip.converter.writer,"
        " larq_clip.converter.reader, larq_clip.converter.report; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
