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
        "depthwise": (
            q.QuantLocallyConnected2D(3, 3),
            image,
            "QuantLocally.*not supported; supported are .*QuantConv2D",
        ),
        "reshape": (k.Reshape((6, 6, 2, 2)), image, r"target_shape is \(6, 6, 2, 2\); accepted are 1 to 3 axes"),
        "lambda": (k.Lambda(lambda x: x**2), image, "its code computes none of what the converter knows; accepted is"),
        "lambda division": (k.Lambda(lambda x: x / 3), image, "for x / c write x \\* \\(1 / c\\)"),
        "subclass": (type("MyDense", (k.Dense,), {})(3), (4,), "MyDense.*not supported"),
        "elu": (k.Activation("elu"), image, "its activation is 'elu'; accepted are 'linear', 'relu', 'relu6', "),
        "conv elu": (k.Conv2D(3, 3, activation="softplus"), image, "its activation is 'softplus'"),
        "relu": (k.ReLU(threshold=0.5), image, r"its threshold is 0\.5; accepted: 0"),
        "average": (
            k.UpSampling2D(interpolation="bilinear"),
            image,
            "its interpolation is 'bilinear'; accepted: 'near",
        ),
        "dilated": (
            k.Conv2DTranspose(3, 3, dilation_rate=2),
            image,
            r"its dilation_rate is \(2, 2\); use dilation_rate",
        ),
        "sequence": (k.Conv1D(3, 3, data_format="channels_first"), (6, 4), "channels_first.*use 'channels_last'"),
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
            q.QuantConv2D(3, 3, input_quantizer=lq.quantizers.DoReFa(4), kernel_quantizer="ste_sign"),
            image,
            "input_quantizer.*produces values other than -1 and \\+1; accepted are signs .* DoReFa of 1 to 3 bits",
        ),
        "ternary": (q.QuantDense(3, input_quantizer="ste_tern"), (4,), "produces values other than -1 and"),
        "levels around": (
            q.QuantConv2D(3, 3, padding="same", pad_values=-1.0, **{**BINARY, "input_quantizer": "ste_heaviside"}),
            image,
            "its pad_values is -1; accepted are 0 and 1 around a binary input",
        ),
        "wrong at zero": (
            q.QuantConv2D(3, 3, input_quantizer=negative_sign, kernel_quantizer="ste_sign"),
            image,
            r"'negative_sign' produces -1 at 0, where the sign is \+1; accepted is \+1 for x >= 0",
        ),
        "pad values": (
            q.QuantConv2D(3, 3, padding="same", pad_values=0.5, **BINARY),
            image,
            r"its pad_values is 0\.5; accepted are -1 and 0 and 1 around a binary input",
        ),
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
    *(
        "depthwise",
        "reshape",
        "lambda",
        "lambda division",
        "subclass",
        "elu",
        "conv elu",
        "relu",
        "average",
        "dilated",
        "sequence",
        "softmax axis",
        "channels first",
        "pool first",
        "mean first",
        "norm axis",
        "norm batch",
        "norm nan",
        "norm variance",
        "half",
        "double",
        "dorefa",
        "ternary",
        "levels around",
        "wrong at zero",
        "pad values",
        "float clip",
        "other clip",
        "clip layer",
    ),
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


@pytest.mark.parametrize("shape", [(), (None, None, 3), (2, 2, 2, 2)])
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
    idle = keras.layers.Dropout(0.5)(x)
    for outputs in (idle, [idle, idle]):
        with pytest.raises(ConversionError, match="its output is its input.*give it a layer that computes something"):
            convert_keras_model(keras.Model(x, outputs))


def test_several_inputs_of_a_layer(keras):
    from larq_clip.converter import convert_keras_model

    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Activation("linear", name="both")([keras.layers.ReLU()(x), x]))
    with pytest.raises(ConversionError, match=r"layer 'both' \(Activation\): it has 2 inputs and 2 outputs; give it"):
        convert_keras_model(model)
    image = keras.Input((4, 4, 3))
    parts = [image, keras.layers.ReLU()(image), keras.layers.ReLU()(image)]
    for layer, message in (
        (keras.layers.Concatenate(1, name="join"), "its axis is 1; join the channels, axis=-1 or axis=3"),
        (keras.layers.Average(name="join"), "it averages 3 tensors; average 2, 4 or 8"),
        (keras.layers.Lambda(lambda x: x[0] * x[1] + x[2], name="join"), "its code computes none of what"),
    ):
        with pytest.raises(ConversionError, match=rf"layer 'join' \({type(layer).__name__}\): {message}"):
            convert_keras_model(keras.Model(image, layer(parts)))


UNSUPPORTED = {
    "ConvLSTM2D": ((3, 6, 6, 2), lambda k: k.ConvLSTM2D(2, 3)),
    "LSTM": ((6, 2), lambda k: k.LSTM(3)),
    "GRU": ((6, 2), lambda k: k.GRU(3)),
    "SimpleRNN": ((6, 2), lambda k: k.SimpleRNN(3)),
    "Bidirectional": ((6, 2), lambda k: k.Bidirectional(k.LSTM(3))),
    "TimeDistributed": ((6, 2), lambda k: k.TimeDistributed(k.Dense(3))),
    "LayerNormalization": ((6, 2), lambda k: k.LayerNormalization()),
    "Permute": ((6, 2), lambda k: k.Permute((2, 1))),
    "RepeatVector": ((6,), lambda k: k.RepeatVector(2)),
    "ELU": ((6,), lambda k: k.ELU()),
    "ThresholdedReLU": ((6,), lambda k: k.ThresholdedReLU()),
    "LocallyConnected1D": ((6, 2), lambda k: k.LocallyConnected1D(2, 3)),
    "Masking": ((6, 2), lambda k: k.Masking()),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_types_of_layers(keras, kind):
    """One clear error each, which says what is supported."""
    from larq_clip.converter import convert_keras_model

    shape, build = UNSUPPORTED[kind]
    x = keras.Input(shape)
    first = keras.layers.ReLU()(x)
    model = keras.Model(x, build(keras.layers)(first))
    what = (
        "input .* has shape" if len(shape) == 4 else rf"layer '.*' \({kind}\): layers of this type are not supported; "
    )
    with pytest.raises(ConversionError, match=what):
        convert_keras_model(model)


def test_attention(keras):
    from larq_clip.converter import convert_keras_model

    x = keras.Input((6, 2))
    model = keras.Model(x, keras.layers.MultiHeadAttention(1, 2)(x, keras.layers.ReLU()(x)))
    with pytest.raises(ConversionError, match="MultiHeadAttention.*not supported; supported are .*convert the part"):
        convert_keras_model(model)


def test_nested_models_that_are_no_graph(keras):
    from larq_clip.converter import convert_keras_model

    class Subclassed(keras.Model):
        def call(self, x):
            return x + 1

    x = keras.Input((4,))
    with pytest.raises(ConversionError, match=r"layer 'inner' \(Subclassed\): model 'inner'.*use the functional API"):
        convert_keras_model(keras.Model(x, Subclassed(name="inner")(x)))


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
    """All of it but the importer."""
    import subprocess
    import sys
    from pathlib import Path

    from larq_clip import converter

    folder = Path(converter.__file__).parent
    files = [file.relative_to(folder) for file in folder.rglob("*.py") if "keras_importer" not in file.parts]
    names = [".".join(("larq_clip.converter", *file.with_suffix("").parts)) for file in files]
    assert len(names) > 45
    code = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
        "assert not {'tensorflow', 'tf_keras', 'keras', 'larq'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
