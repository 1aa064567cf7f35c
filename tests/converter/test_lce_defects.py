"""What Larq Compute Engine gets wrong, crashes on or runs in float: here exact, on the C runtime.

Each test is a defect of LCE 0.16 or a wish of its users, verified at the time that it was written down.
"""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import ops_of, types
from keras_support import BINARY, check, images, sequential

from larq_clip._keras import keras, lq
from larq_clip.converter import ir

L, Q = keras.layers, lq.layers
SIGNS = {**BINARY, "use_bias": False}


@pytest.mark.parametrize("size", [6, 7])
def test_explicit_zeros_in_front_of_a_strided_binary_convolution(size):
    """LCE takes ZeroPadding2D(1) and a valid 3x3 convolution of stride 2 for 'same', which pads even sizes otherwise.

    Here the sign of 0 is +1, so that what Larq pads before the sign counts as +1, not as nothing.
    """
    depthwise = {"input_quantizer": "ste_sign", "depthwise_quantizer": "ste_sign", "use_bias": False}
    for layer in (Q.QuantConv2D(8, 3, 2, **SIGNS), Q.QuantDepthwiseConv2D(3, 2, **depthwise)):
        graph = check(sequential((size, size, 4), L.ZeroPadding2D(1), layer), exact=True)
        assert types(graph) == ["Bitpack", "BinaryConv2D"]
        (conv,) = ops_of(graph, ir.BinaryConv2D)
        assert conv.pad_value == 1 and (conv.window.pad_top, conv.window.pad_left) == (1, 1)


@pytest.mark.parametrize("size", [6, 7])
def test_explicit_zeros_in_front_of_strided_float_convolutions(size):
    for layer in (L.Conv2D(8, 3, 2), L.DepthwiseConv2D(3, 2)):
        graph = check(sequential((size, size, 4), L.ZeroPadding2D(1), layer), exact=False)
        assert types(graph) == ["Conv2D"]


def test_explicit_zeros_that_no_convolution_can_take():
    """More zeros than the kernel is wide, zeros at one side, and zeros that a pool reads."""
    graph = check(sequential((6, 6, 4), L.ZeroPadding2D(4), L.Conv2D(3, 3, 2)), exact=False)
    assert types(graph) == ["Slice", "Conv2D"]
    graph = check(sequential((6, 6, 4), L.ZeroPadding2D(((0, 1), (0, 1))), Q.QuantConv2D(8, 3, 2, **SIGNS)), exact=True)
    assert types(graph) == ["Bitpack", "BinaryConv2D"]
    check(sequential((6, 6, 4), L.ZeroPadding2D(1), L.MaxPooling2D(3, 2), Q.QuantConv2D(8, 3, **SIGNS)), exact=True)


def test_sign_of_a_relu_of_a_pool():
    """LCE drops the relu: then signs are those of the pool, here they are all +1."""
    layers = [L.MaxPooling2D(2), L.ReLU(), Q.QuantConv2D(8, 3, padding="same", **SIGNS)]
    check(sequential((8, 8, 4), Q.QuantConv2D(8, 3, padding="same", **SIGNS), *layers), exact=True)
    layers = [L.MaxPooling2D(2), L.ReLU(), Q.QuantConv2D(8, 3, padding="same", **SIGNS)]
    check(sequential((8, 8, 4), *layers), exact=True)


def test_a_large_dense_layer():
    """9216 x 4096, DoReFaNet's first: LCE's converter crashes. 4.5 MiB of bits; Keras holds 144 MiB of float32."""
    from larq_clip.converter import convert_keras_model
    from larq_clip.interpreter import Interpreter

    layer = Q.QuantDense(4096, kernel_initializer="zeros", **SIGNS)
    model = sequential((9216,), layer)
    rng = np.random.default_rng(0)
    layer.kernel.assign(rng.random(layer.kernel.shape, np.float32) - 0.5)
    data = convert_keras_model(model)
    assert len(data) < 1.01 * 9216 * 4096 / 8
    (x,) = images(model, 1)
    np.testing.assert_array_equal(Interpreter(data).predict(x), np.asarray(model(x)))


@pytest.mark.parametrize("pad_value", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("size", [6, 7])
def test_padding_with_bits_behind(pad_value, size):
    """pad_values -1 is refused by LCE, 0 costs it a second pass, and keeps the output from being bits.

    Stride 2 on an even size, where 'same' puts its one row of padding below.
    """
    layers = [L.BatchNormalization(), Q.QuantConv2D(8, 3, **SIGNS)]
    first = Q.QuantConv2D(8, 3, 2, padding="same", pad_values=pad_value, **SIGNS)
    graph = check(sequential((size, size, 4), first, *layers), exact=True)
    assert types(graph) == ["Bitpack", "BinaryConv2D", "BinaryConv2D"]
    threshold, _ = ops_of(graph, ir.BinaryConv2D)
    assert threshold.epilogue is ir.Epilogue.THRESHOLD and threshold.pad_value == int(pad_value)


def test_pool_and_batch_norm_between_binary_layers_are_bits():
    """conv, pool, batch norm, sign: LCE computes all of them in float32."""
    first = Q.QuantConv2D(8, 3, padding="same", **SIGNS)
    layers = [L.MaxPooling2D(2), L.BatchNormalization(), Q.QuantConv2D(8, 3, **SIGNS)]
    graph = check(sequential((8, 8, 4), first, *layers), exact=True)
    assert types(graph) == ["Bitpack", "BinaryConv2D", "BitMaxPool2D", "BinaryConv2D"]


def test_relu_behind_a_batch_norm():
    """An activation behind a batch norm, with a scale below 0, which LCE applies in front of it."""
    first = Q.QuantConv2D(8, 3, padding="same", **SIGNS)
    layers = [L.BatchNormalization(), L.ReLU(), L.BatchNormalization(), Q.QuantConv2D(8, 3, **SIGNS)]
    graph = check(sequential((8, 8, 4), first, *layers), exact=True)
    assert types(graph) == ["Bitpack", "BinaryConv2D", "BinaryConv2D"]
    check(sequential((8, 8, 4), Q.QuantConv2D(8, 3, padding="same", **SIGNS), *layers[:2]), exact=False)


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_binary_convolutions(groups):
    """Not packed at word boundaries: 3 channels a group."""
    graph = check(sequential((6, 6, 12), Q.QuantConv2D(8, 3, groups=groups, padding="same", **SIGNS)), exact=True)
    assert types(graph) == ["Bitpack", "BinaryConv2D"]


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("dilation", [2, 4])
def test_dilated_binary_convolutions(dilation, padding):
    layer = Q.QuantConv2D(8, 3, dilation_rate=dilation, padding=padding, **SIGNS)
    graph = check(sequential((11, 10, 4), layer), exact=True)
    assert types(graph) == ["Bitpack", "BinaryConv2D"]


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_batches(batch):
    """A fixed batch above 1 and an unknown one."""
    x = keras.Input(batch_shape=(batch, 6, 6, 4))
    check(keras.Model(x, Q.QuantConv2D(8, 3, **SIGNS)(x)), exact=True, count=batch or 4)


@pytest.mark.parametrize("shape", [(70,), (5, 70)])
def test_dense_layers_and_sequences_are_binary(shape):
    """Rank 2 and rank 3: LCE runs them in float32."""
    layers = [Q.QuantDense(6, **SIGNS), L.BatchNormalization(), Q.QuantDense(3, **SIGNS)]
    graph = check(sequential(shape, *layers), exact=True)
    assert types(graph) == ["Bitpack", "BinaryConv2D", "BinaryConv2D"]


def test_one_dimensional_convolutions_are_binary():
    layers = [Q.QuantConv1D(8, 3, padding="same", **SIGNS), L.MaxPooling1D(2), L.BatchNormalization()]
    graph = check(sequential((9, 4), *layers, Q.QuantConv1D(3, 3, **SIGNS)), exact=True)
    assert types(graph) == ["Bitpack", "BinaryConv2D", "BitMaxPool2D", "BinaryConv2D"]


def test_a_kernel_with_a_scale_is_bits():
    """XNOR-Net's and Bi-Real Net's: LCE keeps them in float32, 170 MB of XNORNet."""
    scaled = {**SIGNS, "kernel_quantizer": "magnitude_aware_sign"}
    graph = check(sequential((6, 6, 4), Q.QuantConv2D(8, 3, **scaled)), exact=False)
    assert types(graph) == ["Bitpack", "BinaryConv2D"]
