"""The networks of the accuracy experiments, for 32x32 images, in any width.

First layer, 1x1 shortcuts and classifier are of full precision, all else is binary: `ste_sign` inputs and kernels,
latent weights clipped to [-1, 1], padding with +1. Where signs follow, batch norm comes right in front of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from larq_clip._keras import keras, lq

IMAGE = (32, 32, 3)
CLASSES = 10
BINARY: dict[str, Any] = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "kernel_initializer": "glorot_normal",
    "padding": "same",
    "pad_values": 1.0,
    "use_bias": False,
}


def _norm(name: str) -> keras.layers.Layer:
    return keras.layers.BatchNormalization(momentum=0.95, epsilon=1e-5, name=name)


def _vgg(name: str, blocks: tuple[tuple[int, bool], ...], width: float) -> keras.Model:
    """Convolutions 3x3 of (filters, whether a 2x2 max pool follows), then the classifier on the last image."""
    layers: list[Any] = [keras.layers.InputLayer(IMAGE, name="image")]
    for i, (filters, pooled) in enumerate(blocks):
        channels = round(filters * width)
        if i == 0:
            layers.append(keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name="conv0"))
        else:
            layers.append(lq.layers.QuantConv2D(channels, 3, name=f"conv{i}", **BINARY))
        if pooled:
            layers.append(keras.layers.MaxPool2D(2, name=f"pool{i}"))
        layers.append(_norm(f"norm{i}"))
    layers += [
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(CLASSES, name="classifier"),
    ]
    return keras.Sequential(layers, name=name)


def vgg_small(width: float = 1.0) -> keras.Model:
    """VGG-Small (Zhang et al. 2018): 128-128-P-256-256-P-512-512-P and one dense layer."""
    blocks = ((128, False), (128, True), (256, False), (256, True), (512, False), (512, True))
    return _vgg("vgg_small", blocks, width)


def vgg_11(width: float = 1.0) -> keras.Model:
    """VGG-11 (Xu et al. 2019): 64-P-128-P-256-256-P-512-512-P-512-512-P and one dense layer."""
    blocks = (64, True), (128, True), (256, False), (256, True), (512, False), (512, True), (512, False), (512, True)
    return _vgg("vgg_11", blocks, width)


def resnet_e18(width: float = 1.0) -> keras.Model:
    """BinaryResNetE18 (Bethge et al. 2019) with the CIFAR stem: one 3x3 convolution at full resolution, no pool.

    A shortcut around every one of its 16 binary convolutions; where the image shrinks it is an average pool, a 1x1
    convolution of full precision and a batch norm.
    """
    filters = round(64 * width)
    image = x = keras.Input(IMAGE, name="image")
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name="stem")(x)
    x = _norm("stem_norm")(x)
    for i in range(16):
        shrinks = i in (4, 8, 12)
        shortcut = x
        if shrinks:
            filters *= 2
            shortcut = keras.layers.AveragePooling2D(2, name=f"shortcut_pool{i}")(shortcut)
            shortcut = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"shortcut{i}")(shortcut)
            shortcut = _norm(f"shortcut_norm{i}")(shortcut)
        x = lq.layers.QuantConv2D(filters, 3, strides=2 if shrinks else 1, name=f"conv{i}", **BINARY)(x)
        x = _norm(f"norm{i}")(x)
        x = keras.layers.Add(name=f"add{i}")([x, shortcut])
    return _classify(image, x, "resnet_e18")


def densenet_28(width: float = 1.0) -> keras.Model:
    """BinaryDenseNet28 (Bethge et al. 2019) with the CIFAR stem: growth 64, blocks of 6, 6, 6 and 5 layers.

    Between the blocks max pool, batch norm, relu and a 1x1 convolution of full precision that divides the channels by
    2.7, 2.7 and 2.2.
    """
    growth = round(64 * width)
    image = x = keras.Input(IMAGE, name="image")
    x = keras.layers.Conv2D(growth, 3, padding="same", use_bias=False, name="stem")(x)
    for block, (layers, reduction) in enumerate(((6, 2.7), (6, 2.7), (6, 2.2), (5, None))):
        for i in range(layers):
            y = _norm(f"norm{block}_{i}")(x)
            y = lq.layers.QuantConv2D(growth, 3, name=f"conv{block}_{i}", **BINARY)(y)
            x = keras.layers.Concatenate(name=f"join{block}_{i}")([x, y])
        if reduction:
            x = _norm(f"transition_norm{block}")(x)
            x = keras.layers.MaxPool2D(2, name=f"transition_pool{block}")(x)
            x = keras.layers.ReLU(name=f"transition_relu{block}")(x)
            x = keras.layers.Conv2D(round(x.shape[-1] / reduction), 1, use_bias=False, name=f"transition{block}")(x)
    return _classify(image, _norm("last_norm")(x), "densenet_28")


def _classify(image: Any, x: Any, name: str) -> keras.Model:
    x = keras.layers.ReLU(name="last_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, keras.layers.Dense(CLASSES, name="classifier")(x), name=name)


NETWORKS: dict[str, Callable[[float], keras.Model]] = {
    "vgg_small": vgg_small,
    "vgg_11": vgg_11,
    "resnet_e18": resnet_e18,
    "densenet_28": densenet_28,
}
