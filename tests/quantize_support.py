"""Small binary models with weights as if trained, to be clipped and quantized."""

from __future__ import annotations

import numpy as np

from larq_clip._keras import keras, lq, tf

L = keras.layers
SHAPE = (10, 10, 3)


def normal_images():
    return np.random.default_rng(3).normal(size=(24, *SHAPE)).astype(np.float32)


def binary(filters, name, **arguments):
    arguments = {"kernel_size": 3, "padding": "same", "use_bias": False, **arguments}
    return lq.layers.QuantConv2D(
        filters, name=name, input_quantizer="ste_sign", kernel_quantizer="ste_sign", **arguments
    )


def vgg():
    dense = lq.layers.QuantDense(
        16, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, name="dense"
    )
    stack = [
        L.InputLayer(SHAPE, name="image"),
        L.Conv2D(8, 3, name="stem"),
        L.BatchNormalization(name="stem_norm"),
        binary(16, "conv", pad_values=1.0),
        L.MaxPooling2D(2, name="pool"),
        L.BatchNormalization(name="norm"),
        L.Flatten(name="flatten"),
        dense,
        L.BatchNormalization(name="dense_norm"),
        L.Dense(5, name="classifier"),
        L.Softmax(name="softmax"),
    ]
    return keras.Sequential(stack, name="vgg")


def resnet():
    image = keras.Input(SHAPE, name="image")
    x = L.BatchNormalization(name="stem_norm")(L.Conv2D(8, 3, padding="same", name="stem")(image))
    for block, (filters, strides) in enumerate([(8, 1), (16, 2), (16, 1)]):
        shortcut = x
        if strides == 2:
            shortcut = L.AveragePooling2D(2, name="shortcut_pool")(shortcut)
            shortcut = L.Conv2D(filters, 1, use_bias=False, name="shortcut_conv")(shortcut)
            shortcut = L.BatchNormalization(name="shortcut_norm")(shortcut)
        y = binary(filters, f"conv_{block}", strides=strides, activation="relu" if block == 2 else None)(x)
        y = L.BatchNormalization(name=f"norm_{block}")(y)
        x = y + shortcut if block == 0 else L.Add(name=f"add_{block}")([shortcut, y])
    x = L.GlobalAveragePooling2D(name="mean")(L.Activation("relu", name="relu")(x))
    return keras.Model(image, L.Dense(5, name="classifier")(x), name="resnet")


def densenet():
    image = keras.Input(SHAPE, name="image")
    x = L.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = L.ReLU(name="stem_relu")(L.BatchNormalization(name="stem_norm")(x))
    for block in range(3):
        y = binary(8, f"conv_{block}")(L.BatchNormalization(name=f"norm_{block}")(x))
        x = tf.concat([x, y], axis=-1) if block == 1 else L.Concatenate(name=f"join_{block}")([x, y])
        if block == 0:
            x = L.MaxPooling2D(2, strides=1, name="pool")(L.BatchNormalization(name="transition_norm")(x))
            x = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="blur")(x)
            x = L.Conv2D(8, 1, use_bias=False, name="transition")(x)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="last_norm")(x))
    x = L.Dense(5, name="classifier")(L.Reshape((-1,), name="flat")(L.MaxPooling2D(2, name="last_pool")(x)))
    return keras.Model(image, x, name="densenet")


MODELS = {make.__name__: make for make in (vgg, resnet, densenet)}


def trained(make):
    """Weights as if trained: batch norms that fit their inputs, and affine variables with both signs."""
    keras.utils.set_random_seed(7)
    rng = np.random.default_rng(11)
    model = make()
    images = rng.normal(size=(32, *SHAPE)).astype(np.float32)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            gamma, beta, *rest = layer.get_weights()
            sign = rng.choice([-1, 1], gamma.shape)
            layer.set_weights([sign * rng.uniform(0.5, 1.5, gamma.shape), rng.normal(0, 0.3, beta.shape), *rest])
    return model
