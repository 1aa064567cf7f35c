"""What clip_model is restricted to, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from clip_support import sign

from larq_clip import layers
from larq_clip._keras import keras, lq, tf
from larq_clip.models import accumulator_clips, binary_layers, clip_model, set_clipping


def test_restricted_to_layers(build_network):
    model = build_network()
    copy = clip_model(model, layers=["conv_2", model.get_layer("dense")])
    assert list(accumulator_clips(copy)) == ["conv_2", "dense"]
    assert type(copy.get_layer("conv_1")) is lq.layers.QuantConv2D
    again = clip_model(copy, bits=4)  # clips what is left, and keeps the others
    assert [clip.bits for clip in accumulator_clips(again).values()] == [4, 8, 8]
    with pytest.raises(ValueError, match="all binary layers of model 'network' have an accumulator_quantizer already"):
        clip_model(again)
    with pytest.raises(ValueError, match="layer 'conv_2' has an accumulator_quantizer already"):
        clip_model(copy, layers=["conv_2"])


@pytest.mark.parametrize(
    "layers_, message",
    [
        (["conv_9"], r"layers holds 'conv_9', which is not in model 'network'; its layers are \['conv_1'"),
        ([lq.layers.QuantDense(1, name="stranger")], "layers holds the layer 'stranger', which is not in model"),
        (["norm_1"], r"'norm_1' \(BatchNormalization\) is not a binary .* binary are \['conv_1', 'conv_2', 'dense'\]"),
        ([], "layers is empty"),
    ],
)
def test_wrong_layers_are_refused(build_network, layers_, message):
    with pytest.raises(ValueError, match=message):
        clip_model(build_network(), layers=layers_)


def test_a_bare_name_is_refused(build_network):
    with pytest.raises(TypeError, match="layers is 'conv_1'; accepted is a list"):
        clip_model(build_network(), layers="conv_1")


def test_binary_layers_of_other_kinds_are_not_skipped_silently():
    class MyDense(lq.layers.QuantDense):
        pass

    def model_with(layer):
        x = keras.Input((4, 8))
        y = layer(x)
        return keras.Model(x, lq.layers.QuantDense(3, **sign(), name="fine")(y))

    for layer, message in (
        (lq.layers.QuantConv1D(8, 3, **sign(), name="odd"), "'odd' is a binary QuantConv1D, which cannot be clipped"),
        (MyDense(8, **sign(), name="odd"), "layer 'odd' is a binary MyDense"),
        (
            keras.layers.TimeDistributed(lq.layers.QuantDense(8, **sign(), name="core"), name="odd"),
            r"layer 'odd' \(TimeDistributed\) wraps the binary QuantDense 'core'",
        ),
    ):
        model = model_with(layer)
        with pytest.raises(ValueError, match=message):
            clip_model(model)
        if type(layer) is not MyDense:  # which Keras cannot copy, being a local class
            assert list(accumulator_clips(clip_model(model, layers=["fine"]))) == ["fine"]


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.QuantDense(3, **sign(), accumulator_quantizer="accumulator_clip", name="own")

    def call(self, inputs):
        return self.dense(inputs)


def test_subclassed_models_are_refused_but_can_be_switched():
    model = Subclassed(name="mine")
    model(tf.ones((1, 4)))
    with pytest.raises(ValueError, match=r"model 'mine' is a subclassed model \(Subclassed\).*functional"):
        clip_model(model)
    set_clipping(model, False)
    assert not model.dense.accumulator_quantizer.enabled


def test_nested_subclassed_models_are_named():
    x = keras.Input((4,))
    model = keras.Model(x, lq.layers.QuantDense(3, **sign())(Subclassed(name="mine")(x)), name="outer")
    for transform in (clip_model, binary_layers):
        with pytest.raises(ValueError, match="model 'outer/mine' is a subclassed model"):
            transform(model)


@pytest.mark.parametrize("transform", [clip_model, binary_layers])
def test_what_is_no_model_is_refused(transform):
    with pytest.raises(TypeError, match="model is of type str"):
        transform("model.h5")


def test_switching_a_model_without_clips_is_refused(build_network):
    with pytest.raises(ValueError, match="model 'network' has no AccumulatorClip; make one .*clip_model"):
        set_clipping(build_network(), True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"bits": 1}, "bits is 1"),
        ({"step": 3}, "step is 3"),
        ({"step": "automatic"}, "step is 'automatic'; accepted are powers of two and 'auto'"),
        ({"step": "auto"}, "step='auto' needs calibration_data"),
        ({"step": 2, "calibration_data": np.zeros((1, 6, 6, 8))}, "calibration_data is given, but step is 2"),
        ({"step": "auto", "calibration_data": np.zeros((0, 6, 6, 8))}, "calibration_data is empty"),
        ({"step": "auto", "calibration_data": []}, "calibration_data is empty"),
        ({"step": "auto", "calibration_data": np.zeros((2, 6, 6, 9))}, r"shape \(2, 6, 6, 9\).*\(None, 6, 6, 8\)"),
        ({"step": "auto", "calibration_data": np.zeros((6, 6, 8))}, r"shape \(6, 6, 8\) for input 'image'"),
        ({"step": "auto", "calibration_data": np.full((1, 6, 6, 8), np.nan)}, "not finite"),
        ({"step": "auto", "calibration_data": np.full((1, 6, 6, 8), "x")}, "accepted are numbers"),
        ({"step": "auto", "calibration_data": {"pixels": np.zeros((1, 6, 6, 8))}}, r"has the inputs \['pixels'\]"),
        ({"step": "auto", "calibration_data": np.zeros((1, 6, 6, 8)), "percentile": 0}, "percentile is 0"),
        ({"step": "auto", "calibration_data": np.zeros((1, 6, 6, 8)), "percentile": 100.1}, "percentile is 100.1"),
    ],
)
def test_wrong_arguments_are_refused(build_network, arguments, message):
    with pytest.raises(ValueError, match=message):
        clip_model(build_network(), **arguments)


@pytest.mark.parametrize("data", ["images.npy", 3])
def test_calibration_data_of_no_accepted_kind(build_network, data):
    with pytest.raises(TypeError, match="calibration_data is of type"):
        clip_model(build_network(), step="auto", calibration_data=data)
