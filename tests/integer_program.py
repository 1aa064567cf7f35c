"""Quantized Keras models in integer arithmetic, layer by layer, in NumPy."""

from __future__ import annotations

import numpy as np

from larq_clip import arithmetic, layers
from larq_clip import fixed_point as fp
from larq_clip._keras import keras, lq

L = keras.layers
POINT = 36  # fraction bits of the exact tensors here, as int64


def as_integers(x):
    q = np.ldexp(x, POINT)
    assert np.all(q == np.floor(q)) and np.abs(q).max(initial=0) < 2**62, "not a fixed-point tensor"
    return q.astype(np.int64)


def windows(layer, x):
    size = layer.pool_size if hasattr(layer, "pool_size") else layer.kernel_size
    dilation = getattr(layer, "dilation_rate", (1, 1))
    return tuple(
        arithmetic.window_axis(x.shape[1 + i], size[i], layer.strides[i], dilation[i], layer.padding) for i in (0, 1)
    )


def binary_values(layer, x):
    clip = layer.accumulator_quantizer
    with lq.context.quantized_scope(False):
        kernel = layer.kernel.numpy()
    if kernel.ndim == 2:
        x, kernel = x[:, None, None], kernel[None, None]
        axes = (arithmetic.window_axis(1, 1), arithmetic.window_axis(1, 1))
    else:
        axes = windows(layer, x)
    w_bits = arithmetic.sign_bits(np.moveaxis(kernel, -1, 0))
    a = arithmetic.binary_conv2d(arithmetic.sign_bits(x), w_bits, axes, int(getattr(layer, "pad_values", 0)))
    y = clip.step * arithmetic.clip_accumulator(a, clip.bits, clip.step).astype(np.float64)
    y = np.maximum(y, 0) if layer.activation.__name__ == "relu" else y
    return y[:, 0, 0] if layer.kernel.shape.rank == 2 else y


def int8_values(layer, x):
    q = fp.store_reals(x, layer.input_fraction_bits)
    kernel, bias = layer.integers()
    if isinstance(layer, L.Dense):
        weights, axes = kernel.weights.T[:, None, None], (arithmetic.window_axis(1, 1),) * 2
        y = fp.int8_conv2d(q[:, None, None], kernel._replace(weights=weights), bias, axes)
        return fp.values(*y)[:, 0, 0]
    if isinstance(layer, L.DepthwiseConv2D):
        weights = kernel.weights.reshape(*kernel.weights.shape[:2], 1, -1)
    else:
        weights = kernel.weights
    groups = x.shape[-1] // weights.shape[2]
    kernel = kernel._replace(weights=np.moveaxis(weights, -1, 0))
    return fp.values(*fp.int8_conv2d(q, kernel, bias, windows(layer, x), groups))


def reference(layer, inputs):
    """A layer's output in integer arithmetic; the tensors are float64 that hold fixed-point numbers."""
    x = inputs[0]
    if isinstance(layer, layers.StorageQuantizer):
        return fp.values(fp.store_reals(x, layer.fraction_bits, layer.bits), layer.fraction_bits)
    if isinstance(layer, (layers.QuantConv2D, layers.QuantDense)):
        return binary_values(layer, x)
    if isinstance(layer, (layers.Int8Conv2D, layers.Int8DepthwiseConv2D, layers.Int8Dense)):
        return int8_values(layer, x)
    if isinstance(layer, layers.FixedPointBatchNormalization):
        y, bits = fp.affine(as_integers(x) >> 12, layer.integers(), POINT - 12)
        assert np.all(as_integers(x) % 2**12 == 0)
        return fp.values(y, bits)
    if isinstance(layer, layers.Add):
        return fp.values(sum(map(as_integers, inputs)), POINT)
    if isinstance(layer, layers.Concatenate):
        return np.concatenate(inputs, axis=-1)
    if isinstance(layer, L.MaxPooling2D):
        return arithmetic.window_reduce(x, windows(layer, x), np.maximum, np.full((), -np.inf))
    if isinstance(layer, L.AveragePooling2D):
        assert layer.padding == "valid"
        return arithmetic.window_reduce(x, windows(layer, x), np.add, np.zeros(())) / np.prod(layer.pool_size)
    if isinstance(layer, L.GlobalAveragePooling2D):
        return x.sum((1, 2)) / np.prod(x.shape[1:3])
    if isinstance(layer, (L.Flatten, L.Reshape)):
        return x.reshape(x.shape[0], -1)
    if isinstance(layer, (L.ReLU, L.Activation)):
        return np.maximum(x, 0)
    raise AssertionError(f"no reference for {type(layer).__name__}")


def evaluate(model, images):
    """All tensors of the model, by the name of the layer, from the image on."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, L.Softmax):
            continue
        if isinstance(layer, L.InputLayer):
            found[layer.name] = images.astype(np.float64)
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        sources = [found.get(tensor.node.layer.name, images.astype(np.float64)) for tensor in inputs]
        found[layer.name] = reference(layer, sources)
    return found
