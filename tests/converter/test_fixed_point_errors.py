"""What of fixed-point models cannot be converted is an error that names the layer, why, and what to do."""

from __future__ import annotations

import numpy as np
import pytest
from fixed_point_support import SHAPE, images

from larq_clip import layers as ours
from larq_clip._keras import keras, lq
from larq_clip.converter import ir, keras_importer, pipeline
from larq_clip.converter.ir import DType
from larq_clip.errors import ConversionError
from larq_clip.quantizers import AccumulatorClip

L = keras.layers


def image():
    return keras.Input(SHAPE, name="image")


def storage(name="store", fraction_bits=4, bits=8):
    return ours.StorageQuantizer(bits, fraction_bits, name=name)


def norm(name, fraction_bits=10):
    return ours.FixedPointBatchNormalization(name=name, fraction_bits=fraction_bits)


def binary(name, filters=4, **arguments):
    return ours.QuantConv2D(
        filters,
        3,
        padding="same",
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        use_bias=False,
        accumulator_quantizer=AccumulatorClip(),
        name=name,
        **arguments,
    )


def convert(x, output) -> ir.Graph:
    return pipeline.lower(keras_importer.import_model(keras.Model(x, output)))


def refused(message: str, build) -> None:
    x = image()
    with pytest.raises(ConversionError, match=message):
        convert(x, build(x))


@pytest.mark.parametrize(
    "layer",
    [
        ours.FixedPointBatchNormalization(name="plain"),
        ours.StorageQuantizer(name="plain"),
        ours.Int8Conv2D(2, 3, name="plain"),
        ours.Int8DepthwiseConv2D(3, name="plain"),
        ours.Int8Dense(2, name="plain"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_are_not_quantized(layer):
    refused(rf"layer 'plain' \({type(layer).__name__}\): it is not quantized.*quantize_model", layer)


def test_joins_that_do_not_round_although_they_should():
    refused("layer 'sum' .Add.: it is not quantized", lambda x: ours.Add(bits=8, name="sum")([storage()(x)] * 2))


def test_joins_of_floats():
    refused("layer 'sum' .Add.: its input 'image' is float32", lambda x: ours.Add(name="sum")([x, storage()(x)]))
    refused(
        "layer 'cat' .Concatenate.: its input 'image' is", lambda x: ours.Concatenate(name="cat")([x, storage()(x)])
    )


def test_concatenation_of_exact_tensors_and_of_other_axes():
    refused(
        "layer 'cat' .Concatenate.: its input 'n' is an exact sum or product",
        lambda x: ours.Concatenate(name="cat")([norm("n")(storage()(x)), storage("other")(x)]),
    )
    refused(
        "layer 'cat' .Concatenate.: its axis is 1",
        lambda x: ours.Concatenate(axis=1, name="cat")([storage()(x), storage("other")(x)]),
    )


def test_sum_of_two_exact_tensors():
    refused(
        "exact integers '[nm]' are never stored: layer '.*sum.*adds it to another exact tensor.*StorageQuantizer",
        lambda x: storage("out")(ours.Add(name="sum")([norm("n")(storage()(x)), norm("m")(storage("other")(x))])),
    )


def test_exact_tensor_that_is_pooled():
    pool = L.MaxPooling2D(2, dtype="float64", name="pool")
    refused(
        "exact integers 'n' are never stored.*'pool'",
        lambda x: storage("out")(norm("n_2")(pool(norm("n")(storage()(x))))),
    )


def test_means_that_nothing_stores():
    def mean():
        return L.AveragePooling2D(2, dtype="float64", name="mean")

    refused("layer 'sign' .QuantConv2D.: it reads the mean 'mean'", lambda x: binary("sign")(mean()(storage()(x))))
    refused(
        "layer 'mean' .AveragePooling2D.: it computes in float64, and its input 'n' is int64",
        lambda x: mean()(norm("n")(storage()(x))),
    )


def test_float64_layers_that_are_not_of_integers():
    refused(r"layer 'c' \(Conv2D\): it computes in float64", lambda x: L.Conv2D(2, 3, dtype="float64", name="c")(x))
    refused(
        r"layer 'up' \(UpSampling2D\): it computes in float64", lambda x: L.UpSampling2D(dtype="float64", name="up")(x)
    )


def test_formats_too_far_apart():
    def build(x):
        fine = norm("n", 24 * np.ones(3, int))(norm("m", 24 * np.ones(3, int))(storage("a", 24)(x)))
        return storage("out")(ours.Add(name="sum")([fine, storage("b", -24)(x)]))

    refused(
        "layer '(sum|m|n)' .*: its fraction bits and those of its inputs are too far apart|may leave|reaches", build
    )


def test_exact_outputs_are_rounded_once_and_many_branches_convert():
    """A stored sum, its norm as an output, and what Keras keeps in float32 behind exact numbers."""
    x = image()
    stored = storage("in", [3, 4, 5])(x)
    n = norm("n")(binary("c", 3)(stored))
    total = ours.Add(name="sum", bits=16, fraction_bits=[2, 9, 4])([stored, n])
    soft = L.Softmax(name="soft")(L.GlobalAveragePooling2D(name="mean", dtype="float64")(total))
    model = keras.Model(x, [total, norm("last")(total), soft])
    model.get_layer("n").set_weights(np.array([[0.3, -0.7, 0.01], [1.2, 0, -1], [5, -3, 1], [9, 4, 2]]))
    data = images(3)
    expected = [np.asarray(y).astype(np.float32) for y in model(data, training=False)]
    graph = pipeline.lower(keras_importer.import_model(model))
    arrays = ir.evaluate(graph, {"image": data})
    for name, y in zip(graph.outputs[:2], expected):
        np.testing.assert_array_equal(arrays[name], y)
    np.testing.assert_allclose(arrays[graph.outputs[2]], expected[2], rtol=1e-5)
    assert DType.INT64 not in {tensor.dtype for tensor in graph.tensors.values()}


def test_float_layers_that_stay_float_read_stored_tensors():
    x = image()
    y = L.Conv2D(4, 1, name="float")(storage("in", [3, 4, 5], bits=16)(x))
    y = norm("n")(binary("c")(storage("mid")(L.BatchNormalization(name="bn")(y))))
    graph = convert(x, lq.layers.QuantDense(2, kernel_quantizer="ste_sign", name="kept")(L.Flatten(name="f")(y)))
    assert [op.type for op in graph.ops][:4] == ["Quantize", "Elementwise", "Conv2D", "Quantize"]


@pytest.mark.parametrize("bits, fraction_bits", [(16, 4), (8, [3, 4, 5])])
def test_float_norms_of_stored_tensors(bits, fraction_bits):
    x = image()
    model = keras.Model(x, L.BatchNormalization(name="norm")(storage("in", fraction_bits, bits)(x)))
    model.get_layer("norm").set_weights(np.array([[0.3, -0.7, 0.01], [1.2, 0, -1], [5, -3, 1], [9, 4, 2]]))
    graph = pipeline.lower(keras_importer.import_model(model))
    arrays = ir.evaluate(graph, {"image": images(3)})
    np.testing.assert_allclose(arrays["norm"], model(images(3), training=False), rtol=1e-5, atol=1e-6)
