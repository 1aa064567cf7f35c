"""Every model of larq-zoo: clip, quantize, train one step, save, load; the outputs are the same to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from zoo_support import CASES, CLASSES, as_if_trained, images, trained

from larq_clip import layers
from larq_clip._keras import keras, lq, tf
from larq_clip.models import binary_layers, clip_model, quantize_model

zoo = pytest.importorskip("larq_zoo", reason="larq-zoo is not installed: pip install 'larq-clip[zoo]'")

L = keras.layers
QUANTIZED = (
    layers.Int8Conv2D,
    layers.Int8Dense,
    layers.Int8DepthwiseConv2D,
    layers.FixedPointBatchNormalization,
    layers.StorageQuantizer,
)


def require_on_grids(model, x):
    """Every stored tensor, clipped accumulator and batch norm consists of integers of its format."""
    tensors, steps, limits = [], [], []
    for layer in model.layers:
        if isinstance(layer, layers.StorageQuantizer):
            tensors.append(layer.output)
            steps.append(np.ldexp(1.0, -np.asarray(layer.fraction_bits)))
            limits.append(2.0 ** (layer.bits - 1) - 1)
        elif getattr(layer, "accumulator_quantizer", None) is not None:
            clip = layer.accumulator_quantizer
            tensors.append(layer.output)
            steps.append(float(clip.step))
            limits.append(2.0 ** (clip.bits - 1) - 1)
            if layer.has_scale:
                steps[-1] *= layer.scale_integers() * np.ldexp(1.0, -np.asarray(layer.scale_fraction_bits))
    for layer, step, limit, values in zip(range(len(tensors)), steps, limits, keras.Model(model.inputs, tensors)(x)):
        q = np.asarray(values, np.float64) / step
        assert np.array_equal(q, np.round(q)), f"{tensors[layer].name} is off its grid"
        assert np.abs(q).max() <= limit, f"{tensors[layer].name} is out of range"


def train_one_step(model, x):
    model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy", run_eagerly=True)
    before = [v.numpy() for v in model.trainable_variables]
    loss = model.train_on_batch(x, np.arange(len(x)) % CLASSES)
    assert np.isfinite(loss)
    moved = [not np.array_equal(old, v.numpy()) for old, v in zip(before, model.trainable_variables)]
    assert np.mean(moved) > 0.9


@pytest.mark.parametrize("name", CASES)
def test_clip_quantize_train_save_load(name, tmp_path):
    # These models need no autograph, and converting their many layers takes most of the time.
    tf.autograph.experimental.do_not_convert(clip_quantize_train_save_load)(name, tmp_path)


def clip_quantize_train_save_load(name, tmp_path):
    case = CASES[name]
    model, x = trained(name)
    clipped = clip_model(model, step=2)
    binary = binary_layers(clipped)
    assert len(binary) == case.binary
    assert {(layer.scaled_kernel, layer.input_levels) for layer in binary} == {(case.scaled, case.levels)}

    quantized = quantize_model(clipped, x)
    kept = {type(layer).__name__ for layer in quantized.layers if is_float(layer)}
    assert kept == case.floats
    train_one_step(quantized, x)
    require_on_grids(quantized, x)
    expected = np.asarray(quantized(x))
    assert np.all(np.isfinite(expected)) and np.ptp(expected) > 0
    for suffix in case.suffixes.split():
        path = tmp_path / f"model.{suffix}"
        quantized.save(path)
        assert np.array_equal(np.asarray(keras.models.load_model(path)(x)), expected)
        path.unlink()


def is_float(layer):
    """Whether a layer of a quantized model, not at its end, computes in floating point."""
    return type(layer) in (L.Multiply, L.PReLU, L.BatchNormalization, L.Conv2D, L.Dense) or (
        isinstance(layer, (lq.layers.QuantConv2D, lq.layers.QuantDense))
        and getattr(layer, "accumulator_quantizer", None) is None
    )


def test_weights_of_a_file(tmp_path):
    """weights="imagenet" downloads an h5 file of weights, and loads it as it loads any other."""
    shape = (32, 32, 3)
    x = images(32)
    keras.utils.set_random_seed(8)
    trained = zoo.sota.QuickNetSmall(input_shape=shape, weights=None, num_classes=CLASSES)
    as_if_trained(trained, x)
    path = tmp_path / "weights.h5"
    trained.save_weights(path)
    loaded = zoo.sota.QuickNetSmall(input_shape=shape, weights=str(path), num_classes=CLASSES)
    quantized = quantize_model(clip_model(loaded, step="auto", calibration_data=x), x)
    assert len(trained.weights) == len(quantized.weights)
    for variable, other in zip(trained.get_weights(), quantized.get_weights()):
        assert np.array_equal(variable, other)

    # Trained further, the quantized model saves weights that the float model loads.
    train_one_step(quantized, x)
    quantized.save_weights(path)
    again = zoo.sota.QuickNetSmall(input_shape=shape, weights=None, num_classes=CLASSES)
    again.load_weights(path)
    for variable, other in zip(again.get_weights(), quantized.get_weights()):
        assert np.array_equal(variable, other)
