"""Small binary models for the tests of the Keras plugin."""

from __future__ import annotations

import numpy as np
import pytest

BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
}


@pytest.fixture(scope="session")
def rng_seed() -> int:
    return 20240


@pytest.fixture
def rng(rng_seed):
    return np.random.default_rng(rng_seed)


@pytest.fixture(scope="session")
def binary():
    """Arguments that make a Larq layer binary."""
    return dict(BINARY)


@pytest.fixture(scope="session")
def build_network():
    """A function that builds the unclipped network most tests use: two binary convolutions, one binary dense layer."""

    def build(layers=None, **extra):
        from larq_clip._keras import keras, lq

        layers = layers or lq.layers
        keras.utils.set_random_seed(1)
        arguments = {**BINARY, "use_bias": False, **extra}
        return keras.Sequential(
            [
                keras.layers.InputLayer((6, 6, 8), name="image"),
                layers.QuantConv2D(12, 3, padding="same", pad_values=1.0, name="conv_1", **arguments),
                keras.layers.BatchNormalization(name="norm_1"),
                layers.QuantConv2D(16, 3, strides=2, padding="same", name="conv_2", **arguments),
                keras.layers.BatchNormalization(name="norm_2"),
                keras.layers.Flatten(name="flatten"),
                layers.QuantDense(10, name="dense", **arguments),
                keras.layers.BatchNormalization(name="norm_3"),
                keras.layers.Softmax(name="softmax"),
            ],
            name="network",
        )

    return build


@pytest.fixture
def images(rng):
    return rng.standard_normal((16, 6, 6, 8)).astype(np.float32)


@pytest.fixture
def labels(rng):
    return rng.integers(0, 10, 16)
