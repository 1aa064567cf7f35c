"""The promise: Keras, the NumPy reference and the C runtime compute the same bits, in every tensor of whole models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support import IMAGE, dyadic_images, neon_outputs, randomize, small_vgg

import larq_clip
from larq_clip.converter import ir, reader
from larq_clip.interpreter import available_isas

MODELS = {
    f"{'plain' if step is None else f'step {step}'}, pool {pool}, pad {pad}, {'gamma' if scale else 'no gamma'}": (
        {"step": step, "pool": pool, "pad_values": pad, "scale": scale}
    )
    for (step, pool), (pad, scale) in zip(
        itertools.product((None, 1, 2, 8), ("before", "after")),
        itertools.cycle([(0.0, True), (1.0, True), (-1.0, False)]),
        strict=False,
    )
}


@pytest.fixture(scope="module", params=MODELS.items(), ids=lambda item: item[0])
def converted(request):
    """A Keras model, its file and a few images."""
    model = small_vgg(seed=len(request.param[0]), **request.param[1])
    return model, larq_clip.convert_keras_model(model), dyadic_images(6, seed=3)


def compare_with_keras(model, data, images) -> None:
    """Every layer equals Keras's: signs and integers exactly, floats up to rounding, and the outputs of the whole
    model too, since sums of dyadic images are exact and so no sign turns."""
    found = larq_clip.verify_keras_model(model, data, images).require()
    graph = reader.read(data)
    signs = {f"{layer.name}:input" for layer in model.layers if getattr(layer, "input_quantizer", None) is not None}
    signs &= set(graph.tensors)
    assert len(signs) >= 2 and signs <= set(found.tensors) and not found.flipped
    assert all(difference < 2e-5 for difference in found.outputs.values())


def test_every_tensor_equals_the_reference_and_keras(converted):
    model, data, images = converted
    runtime = larq_clip.Interpreter(data, keep_tensors=True).tensors(images)
    graph = reader.read(data)
    reference = ir.evaluate(graph, {name: images for name in graph.inputs})
    assert set(runtime) == set(reference)
    for name, expected in reference.items():
        if graph.tensors[name].dtype is ir.DType.BIT:
            expected = 1 - 2 * expected.astype(np.int8)
        if graph.producer(name) is not None and graph.producer(name).type == "Softmax":
            np.testing.assert_allclose(runtime[name], expected, rtol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(runtime[name], expected, err_msg=name)

    compare_with_keras(model, data, images)


def test_the_whole_model_stays_in_bits(converted):
    """Nothing wider than a bit is stored between two binary layers, and clipped models have 8-bit thresholds."""
    model, data, _ = converted
    graph = reader.read(data)
    binary = [op for op in graph.ops if op.type == "BinaryConv2D"]
    assert len(binary) == 3
    assert all(op.epilogue is ir.Epilogue.THRESHOLD for op in binary)
    if hasattr(model.layers[2], "accumulator_quantizer"):
        assert all(op.thresholds.dtype == np.int8 and op.clip_limit == 127 for op in binary)


def test_every_instruction_set_predicts_the_same(converted):
    _, data, images = converted
    results = [larq_clip.Interpreter(data, isa=isa).predict(images) for isa in available_isas()]
    results.append(larq_clip.Interpreter(data, num_threads=2).predict(images))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.aarch64
def test_neon_predicts_the_same(converted, aarch64_cli, tmp_path):
    _, data, images = converted
    found = neon_outputs(aarch64_cli, data, images, tmp_path)
    np.testing.assert_array_equal(found, larq_clip.Interpreter(data).predict(images))


def float_tail(step: float | None):
    """Binary layers whose results reach float layers: int8 through a max pool, an affine epilogue, biases, relu."""
    import larq as lq

    from larq_clip import models, quantizers
    from larq_clip._keras import keras

    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    image = keras.Input(IMAGE)
    x = lq.layers.QuantConv2D(48, 3, kernel_quantizer=quantizers.FixedPoint(), use_bias=False)(image)
    x = keras.layers.ReLU()(x)
    x = keras.layers.BatchNormalization()(x)
    x = lq.layers.QuantConv2D(32, 3, padding="same", use_bias=True, **binary)(x)
    x = keras.layers.BatchNormalization()(x)
    x = lq.layers.QuantConv2D(64, 3, strides=2, padding="same", use_bias=False, **binary)(x)
    x = keras.layers.MaxPool2D(3, 2, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.AveragePooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(image, keras.layers.Dense(7, activation="softmax")(x))
    randomize(model, 5)
    return model if step is None else models.clip_model(model, step=step)


@pytest.mark.parametrize("step", [None, 1, 4])
def test_binary_layers_that_feed_float_layers(step):
    model, images = float_tail(step), dyadic_images(5)
    data = larq_clip.convert_keras_model(model)
    compare_with_keras(model, data, images)
    if step is not None:
        assert ir.DType.INT8 in {tensor.dtype for tensor in reader.read(data).tensors.values()}


def test_thresholds_on_ties_of_batch_norm_and_rounding():
    """Means that are whole numbers with beta 0, so that BN is exactly 0 there; gamma 0 with beta on either side."""
    model = small_vgg(step=4, seed=11)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            gamma, beta, mean, variance = layer.get_weights()
            mean, beta = 4 * np.round(mean / 4), 0 * beta
            gamma[:6], beta[:6] = 0, [0, 1, -1, 1e-30, -1e-30, 0]
            mean[6:9], beta[6:9] = 0, [1e30, -1e30, 1e-38]
            layer.set_weights([gamma, beta, mean, variance])
    images = dyadic_images(4)
    compare_with_keras(model, larq_clip.convert_keras_model(model), images)
