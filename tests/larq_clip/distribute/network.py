"""What both programs of tests/larq_clip/test_distribute.py train: a residual network with two binary convolutions."""

from __future__ import annotations

import numpy as np

from larq_clip._keras import keras, lq

SHAPE = (5, 5, 8)
PIXELS_AND_CHANNELS = 5 * 5 * 12


def build():
    keras.utils.set_random_seed(1)
    binary = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "padding": "same",
        "use_bias": False,
    }
    image = keras.Input(SHAPE, name="image")
    x = lq.layers.QuantConv2D(12, 3, name="conv_1", **binary)(image)
    # Of the whole batch, as on one device, and not of each replica's part.
    x = keras.layers.BatchNormalization(name="norm_1", synchronized=True)(x)
    y = lq.layers.QuantConv2D(12, 3, name="conv_2", **binary)(x)
    y = keras.layers.BatchNormalization(name="norm_2", synchronized=True)(y)
    x = keras.layers.Add(name="sum")([x, y])
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, keras.layers.Dense(4, activation="softmax", name="dense")(x), name="network")


def compile_model(model):
    model.compile(keras.optimizers.SGD(0.125), "sparse_categorical_crossentropy", metrics=["accuracy"])


def data(images: int, seed: int = 0):
    """Images, some channels of which are correlated, so that accumulators are large; and labels."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((images, *SHAPE)) + rng.standard_normal((images, 1, 1, 1)) * 2
    return x.astype(np.float32), rng.integers(0, 4, images)


def formats(quantized) -> dict[str, list]:
    """All that quantize_model chose, by layer."""
    keys = ("fraction_bits", "input_fraction_bits", "kernel_steps")
    found = {}
    for layer in quantized.layers:
        chosen = [np.asarray(getattr(layer, key)).tolist() for key in keys if getattr(layer, key, None) is not None]
        if chosen:
            found[layer.name] = chosen
    return found
