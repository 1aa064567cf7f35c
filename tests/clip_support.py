"""What the tests of the whole-model transforms share."""

from __future__ import annotations

import numpy as np

from larq_clip._keras import keras, tf
from larq_clip.models import accumulator_clips

# The binary layers of the fixture `build_network`.
CLIPPED = ["conv_1", "conv_2", "dense"]


def names(found):
    return [layer.name for layer in found]


def steps(model):
    return {name: clip.step for name, clip in accumulator_clips(model).items()}


def predict(model, *inputs):
    return np.asarray(model([tf.constant(x) for x in inputs] if len(inputs) > 1 else tf.constant(inputs[0])))


def sign():
    return {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}


def single(layer, shape=(6, 6, 8)):
    return keras.Sequential([keras.layers.InputLayer(shape), layer], name="single")
