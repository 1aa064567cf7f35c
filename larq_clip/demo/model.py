"""The demo's network and its input: small, VGG-style, exact from the pixels to the logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from larq_clip import models, quantizers
from larq_clip._keras import keras, lq

CLASSES = 10
BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "use_bias": False,
}


def scale_images(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """x / 128 - 1, float32: ``(n, height, width)`` pixels to ``(n, height, width, 1)`` multiples of 2^-7 in [-1, 1)."""
    return (images.astype(np.float32) / 128 - 1)[..., np.newaxis]


def build_model(height: int, width: int) -> keras.Model:
    """The network without clipping.

    First layer and classifier are full precision with 8-bit kernels on a grid (`larq_clip.quantizers.FixedPoint`) and
    without bias: float32 then adds without rounding, so that Keras and the runtime have the same logits to the last
    bit. In between lie two binary convolutions, one with its max pool before the batch norm, one after it, and a binary
    dense layer; they sum 576, 576 and, for images of 28x28 pixels, 1,152 terms, more than the 127 of 8 bits.

    Args:
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        Keras model from ``(batch, height, width, 1)`` to class probabilities ``(batch, 10)``, not compiled.
    """

    def exact() -> dict[str, Any]:
        return {
            "kernel_quantizer": quantizers.FixedPoint(bits=8, fraction_bits=7),
            "kernel_constraint": lq.constraints.WeightClip(127 / 128),
            "use_bias": False,
        }

    def norm(name: str) -> keras.layers.Layer:
        return keras.layers.BatchNormalization(momentum=0.9, name=name)

    return keras.Sequential(
        [
            keras.layers.InputLayer((height, width, 1)),
            lq.layers.QuantConv2D(64, 3, padding="same", name="stem_conv", **exact()),
            keras.layers.MaxPool2D(2, name="stem_pool"),
            norm("stem_norm"),
            lq.layers.QuantConv2D(64, 3, padding="same", pad_values=1.0, name="conv1", **BINARY),
            keras.layers.MaxPool2D(2, name="pool1"),
            norm("norm1"),
            lq.layers.QuantConv2D(128, 3, padding="same", name="conv2", **BINARY),
            norm("norm2"),
            keras.layers.MaxPool2D(2, name="pool2"),
            keras.layers.Flatten(name="flatten"),
            lq.layers.QuantDense(256, name="dense", **BINARY),
            norm("dense_norm"),
            lq.layers.QuantDense(CLASSES, input_quantizer="ste_sign", name="classifier", **exact()),
            keras.layers.Softmax(name="softmax"),
        ],
        name="demo",
    )


def build_clipped_model(height: int, width: int) -> keras.Model:
    """`build_model` with the paper's clip (8 bits, step 1) behind every binary layer."""
    return models.clip_model(build_model(height, width), bits=8, step=1)
