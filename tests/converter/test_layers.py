"""Layers with weights, quantizers, pools and activations: a model of each, on the C runtime and in Keras.

Where all that a model sums are signs, its outputs are equal; else float32 within a tolerance.
"""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import ops_of
from keras_support import BINARY, check, sequential

from larq_clip._keras import keras, lq, tf
from larq_clip.converter import ir

L, Q, quantizers = keras.layers, lq.layers, lq.quantizers
IMAGE, SEQUENCE, VECTOR = (6, 5, 4), (9, 5), (7,)
DEPTHWISE = {"input_quantizer": "ste_sign", "depthwise_quantizer": "ste_sign"}


def quantized(input_quantizer, kernel_quantizer="ste_sign", **arguments):
    settings = {"padding": "same", "use_bias": False, **arguments}
    return Q.QuantConv2D(5, 3, input_quantizer=input_quantizer, kernel_quantizer=kernel_quantizer, **settings)


# By a word: input shape, layers, whether the outputs are equal, and how many binary convolutions the file has.
CASES = {
    "conv1d": (SEQUENCE, lambda: [L.Conv1D(4, 3, strides=2, padding="same", activation="relu")], False, 0),
    "causal": (SEQUENCE, lambda: [L.Conv1D(4, 3, dilation_rate=2, padding="causal")], False, 0),
    "binary conv1d": (SEQUENCE, lambda: [Q.QuantConv1D(4, 3, padding="same", pad_values=-1.0, **BINARY)], True, 1),
    "binary causal": (SEQUENCE, lambda: [Q.QuantConv1D(4, 3, padding="causal", use_bias=False, **BINARY)], True, 1),
    "depthwise": (IMAGE, lambda: [L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)], False, 0),
    "binary depthwise": (
        IMAGE,
        lambda: [Q.QuantDepthwiseConv2D(3, 2, padding="same", depth_multiplier=2, pad_values=1.0, **DEPTHWISE)],
        True,
        1,
    ),
    "separable": (IMAGE, lambda: [L.SeparableConv2D(5, 3, activation="relu")], False, 0),
    "binary separable": (
        IMAGE,
        lambda: [Q.QuantSeparableConv2D(5, 3, pointwise_quantizer="ste_sign", padding="same", **DEPTHWISE)],
        True,
        1,
    ),
    "float groups": (IMAGE, lambda: [L.Conv2D(6, 3, groups=2, padding="same", activation=tf.nn.relu6)], False, 0),
    "binary groups": (IMAGE, lambda: [Q.QuantConv2D(6, 3, groups=2, padding="same", **BINARY)], True, 1),
    "float pad values": (IMAGE, lambda: [Q.QuantConv2D(5, 3, 2, padding="same", pad_values=-1.0)], False, 0),
    "transposed": (IMAGE, lambda: [L.Conv2DTranspose(3, 3, 2, padding="same")], False, 0),
    "transposed valid": (IMAGE, lambda: [L.Conv2DTranspose(3, 4, (2, 3), use_bias=False)], False, 0),
    "transposed sparse": (IMAGE, lambda: [L.Conv2DTranspose(3, 2, 3)], False, 0),
    "transposed longer": (IMAGE, lambda: [L.Conv2DTranspose(3, 3, 2, padding="same", output_padding=1)], False, 0),
    "binary transposed": (IMAGE, lambda: [Q.QuantConv2DTranspose(3, 3, 2, padding="same", **BINARY)], True, 4),
    "binary transposed valid": (IMAGE, lambda: [Q.QuantConv2DTranspose(3, (2, 5), (3, 2), **BINARY)], True, 4),
    "binary transposed dense": (IMAGE, lambda: [Q.QuantConv2DTranspose(3, 3, padding="same", **BINARY)], True, 1),
    "ternary": (IMAGE, lambda: [quantized("ste_sign", "ste_tern")], True, 2),
    "ternary twn": (IMAGE, lambda: [quantized("ste_sign", quantizers.SteTern(ternary_weight_networks=True))], True, 2),
    "dorefa 1": (IMAGE, lambda: [quantized(quantizers.DoReFa(1), pad_values=1.0)], True, 1),
    "dorefa 2": (IMAGE, lambda: [quantized(quantizers.DoReFa(2)), L.BatchNormalization()], False, 2),
    "dorefa 3": (IMAGE, lambda: [quantized(quantizers.DoReFa(3))], False, 3),
    "dorefa 3, ternary": (IMAGE, lambda: [quantized(quantizers.DoReFa(3), "ste_tern")], False, 6),
    "dorefa dense": (
        VECTOR,
        lambda: [Q.QuantDense(4, input_quantizer="dorefa_quantizer", kernel_quantizer="ste_sign")],
        False,
        2,
    ),
    "dorefa, float kernel": (IMAGE, lambda: [quantized(quantizers.DoReFa(2), None)], False, 0),
    "dorefa kernel, 1 bit": (IMAGE, lambda: [quantized("ste_sign", quantizers.DoReFa(1, mode="weights"))], True, 1),
    "dorefa kernel, 2 bits": (IMAGE, lambda: [quantized("ste_sign", quantizers.DoReFa(2, mode="weights"))], False, 0),
    "heaviside": (IMAGE, lambda: [quantized("ste_heaviside")], True, 1),
    "heaviside, sign": (
        IMAGE,
        lambda: [quantized("ste_heaviside"), L.BatchNormalization(), Q.QuantConv2D(3, 3, **BINARY)],
        True,
        2,
    ),
    "unquantized": (
        IMAGE,
        lambda: [
            *(Q.QuantConv2D(3, 2, activation="relu"), Q.QuantDepthwiseConv2D(2), Q.QuantSeparableConv2D(3, 2)),
            *(Q.QuantConv2DTranspose(2, 2), L.Flatten(), Q.QuantDense(4)),
        ],
        False,
        0,
    ),
    "unquantized 1d": (SEQUENCE, lambda: [Q.QuantConv1D(3, 2), Q.QuantDense(4)], False, 0),
    "magnitude aware": (IMAGE, lambda: [quantized("approx_sign", "magnitude_aware_sign")], False, 1),
    "swish sign": (IMAGE, lambda: [quantized("swish_sign", "swish_sign")], True, 1),
    "float kernel": (IMAGE, lambda: [quantized("ste_sign", None)], False, 0),
    "float input": (IMAGE, lambda: [quantized(None, "ste_sign")], False, 0),
    "quantizers as layers": (IMAGE, lambda: [quantizers.SteHeaviside(), L.MaxPooling2D(), quantizers.NoOp(1)], True, 0),
    "levels as a layer": (IMAGE, lambda: [quantizers.DoReFa(2), L.MaxPooling2D()], True, 0),
    "pools 1d": (SEQUENCE, lambda: [L.MaxPooling1D(2), L.AveragePooling1D(2, 1, "same")], False, 0),
    "global mean 1d": (SEQUENCE, lambda: [L.GlobalAveragePooling1D(keepdims=True), L.Conv1D(3, 1)], False, 0),
    "global maximum 1d": (SEQUENCE, lambda: [L.GlobalMaxPooling1D()], True, 0),
    "dense rank 3": (SEQUENCE, lambda: [L.Dense(5, activation="tanh"), L.BatchNormalization()], False, 0),
    "dense rank 4": (IMAGE, lambda: [L.Dense(5, activation="sigmoid"), L.Softmax()], False, 0),
    "prelu": (IMAGE, lambda: [L.PReLU()], True, 0),
    "prelu shared": (IMAGE, lambda: [L.PReLU(shared_axes=[1, 2])], True, 0),
    "prelu 1d": (SEQUENCE, lambda: [L.PReLU(shared_axes=[1])], True, 0),
    "leaky": (IMAGE, lambda: [L.LeakyReLU(0.1)], True, 0),
    "relu6": (IMAGE, lambda: [L.ReLU(6.0)], True, 0),
    "relu, all of it": (IMAGE, lambda: [L.ReLU(1.5, 0.25)], True, 0),
    "activations": (
        IMAGE,
        lambda: [L.Activation(name) for name in ("hard_sigmoid", "leaky_relu", "tanh") if has_activation(name)],
        False,
        0,
    ),
    "hard tanh": (IMAGE, lambda: [L.Activation("hard_tanh")], True, 0),
    "rescaling": (IMAGE, lambda: [L.Rescaling(1 / 3, [0.0, 0.5, -1.0, 2.0])], True, 0),
    "crop, pad": (IMAGE, lambda: [L.Cropping2D(((1, 0), (0, 2))), L.ZeroPadding2D(2), L.MaxPooling2D(3, 1)], True, 0),
    "crop, pad 1d": (SEQUENCE, lambda: [L.Cropping1D((1, 2)), L.ZeroPadding1D(1)], True, 0),
    "upsampling": (IMAGE, lambda: [L.UpSampling2D((2, 3))], True, 0),
    "reshape": (IMAGE, lambda: [L.Reshape((30, 4)), L.Reshape((-1,)), L.Reshape((4, 6, 5))], True, 0),
    "dropouts": (SEQUENCE, lambda: [L.SpatialDropout1D(0.5), L.AlphaDropout(0.5), L.GlobalMaxPooling1D()], True, 0),
}


def has_activation(name):
    return hasattr(keras.activations, name)


@pytest.mark.parametrize("case", CASES)
def test_layer(case):
    shape, build, exact, binary = CASES[case]
    graph = check(sequential(shape, *build()), exact=exact)
    assert len(ops_of(graph, ir.BinaryConv2D)) == binary


@pytest.mark.parametrize("kind", ["conv", "whole image"])
def test_xnor_weight_scale(kind):
    """XNOR-Net's quantizer: the mean magnitude of each filter times its signs."""
    pytest.importorskip("larq_zoo", reason="larq-zoo is not installed: pip install 'larq-clip[zoo]'")
    from larq_zoo.literature.xnornet import xnor_weight_scale

    layer = quantized("ste_sign", xnor_weight_scale, padding="same")
    if kind == "whole image":
        signs = {"input_quantizer": "ste_sign", "kernel_quantizer": xnor_weight_scale, "use_bias": False}
        layer = Q.QuantConv2D(4, IMAGE[:2], **signs)
    graph = check(sequential(IMAGE, layer, L.BatchNormalization()), exact=False)
    assert [op.type for op in graph.ops] == ["Bitpack", "BinaryConv2D"]


def test_planes_of_an_input_share_their_weights():
    """Both convolutions of two planes have the same kernel, and so one constant."""
    graph = check(sequential(IMAGE, quantized(quantizers.DoReFa(2))), exact=False)
    first, second = ops_of(graph, ir.BinaryConv2D)
    assert first.pad_value == second.pad_value == -1
    np.testing.assert_array_equal(first.weights, second.weights)
    assert [len(op.outputs) for op in ops_of(graph, ir.Bitpack)] == [2]


def test_a_filter_of_zeros():
    """Ternary filters of zeros alone beside others, and a kernel of nothing else."""
    for threshold in (0.5, 1e9):
        layer = quantized("ste_sign", quantizers.SteTern(threshold_value=threshold))
        model = sequential(IMAGE, layer)
        kernel = np.random.default_rng(0).normal(size=layer.kernel.shape)
        kernel[..., 1] *= 0.01
        layer.set_weights([kernel])
        from keras_support import convert, images

        x = images(model)
        graph, (found,) = convert(model, x)
        np.testing.assert_array_equal(found, np.asarray(model(x[0])))
        assert ops_of(graph, ir.BinaryConv2D) and not np.any(found[..., 1])


def test_a_scale_and_a_batch_norm_are_one_epilogue():
    layers = [quantized("ste_sign", "magnitude_aware_sign"), L.BatchNormalization()]
    graph = check(sequential(IMAGE, *layers), exact=False)
    assert [op.type for op in graph.ops] == ["Bitpack", "BinaryConv2D"]
