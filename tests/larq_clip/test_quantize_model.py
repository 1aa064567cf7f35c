"""quantize_model: the quantized Keras model is the integer program, evaluated here in NumPy from image to logits."""

from __future__ import annotations

import numpy as np
import pytest
from integer_program import evaluate
from quantize_support import MODELS, normal_images, trained

from larq_clip import layers
from larq_clip._keras import keras, tf
from larq_clip.models import clip_model, quantize_model

L = keras.layers


@pytest.fixture(scope="module")
def images():
    return normal_images()


@pytest.fixture(scope="module")
def clipped(images):
    return {name: clip_model(trained(make), step="auto", calibration_data=images) for name, make in MODELS.items()}


@pytest.mark.parametrize(
    "arguments",
    [{}, {"residual_bits": 16, "variables": "paper"}, {"granularity": "tensor", "percentile": 99}],
    ids=["int8", "int16-paper", "tensor"],
)
@pytest.mark.parametrize("name", MODELS)
def test_forward_is_the_integer_program(clipped, images, name, arguments):
    model = quantize_model(clipped[name], images, **arguments)
    expected = evaluate(model, images)
    inner = [layer for layer in model.layers if not isinstance(layer, (L.InputLayer, L.Softmax))]
    found = keras.Model(model.inputs, [layer.output for layer in inner])(images)
    for layer, y in zip(inner, found):
        np.testing.assert_array_equal(y, expected[layer.name], err_msg=layer.name)


@pytest.mark.parametrize("name", MODELS)
def test_names_and_weights_stay(clipped, images, name):
    model = quantize_model(clipped[name], images)
    assert type(model) is type(clipped[name]) and model.name == name
    for layer in clipped[name].layers:
        for ours, theirs in zip(model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(model.weights) == len(clipped[name].weights)
    kinds = {layer.name: type(layer).__name__ for layer in model.layers}
    assert kinds["stem"] == "Int8Conv2D" and kinds["classifier"] == "Int8Dense"
    assert "BatchNormalization" not in kinds.values()


def test_where_a_resnet_stores(clipped, images):
    model = quantize_model(clipped["resnet"], images)
    sources = {
        layer.name: [tensor.node.layer.name for tensor in tf.nest.flatten(layer.input)] for layer in model.layers[1:]
    }
    # Keras numbers the names of operators through the whole process.
    total = next(layer.name for layer in clipped["resnet"].layers if layer.name.startswith("tf.__operators__.add"))
    assert isinstance(model.get_layer(total), layers.Add)
    assert sources[total] == ["norm_0", "stem_norm_int8"]
    assert sources["conv_0"] == ["stem_norm"] and sources["conv_1"] == [total]  # signs come from exact sums
    assert sources["shortcut_pool"] == [f"{total}_int8"]
    assert sources["shortcut_conv"] == ["shortcut_pool_int8"]
    assert sources["add_1"] == ["shortcut_norm_int8", "norm_1"]
    assert sources["mean"] == ["relu_int8"] and sources["classifier"] == ["mean_int8"]
    stored = model.get_layer("add_1_int8")
    assert stored.bits == 8 and len(stored.fraction_bits) == 16
    assert quantize_model(clipped["resnet"], images, residual_bits=16).get_layer("add_1_int16").bits == 16


def test_formats_are_those_of_the_percentile(clipped, images):
    model = clipped["resnet"]
    y = np.abs(keras.Model(model.inputs, model.get_layer("add_1").output)(images)).reshape(-1, 16)
    for percentile in (100, 90):
        stored = quantize_model(model, images, percentile=percentile).get_layer("add_1_int8")
        for c in range(16):
            range_of_c = 2.0 ** (7 - stored.fraction_bits[c])
            assert np.mean(y[:, c] <= range_of_c) >= percentile / 100 > np.mean(y[:, c] <= range_of_c / 2)
    one = quantize_model(model, images, percentile=100, granularity="tensor").get_layer("add_1_int8").fraction_bits
    assert one == 7 - np.ceil(np.log2(y.max()))


def test_clipped_accumulators_are_joined_as_they_are(clipped, images):
    model = quantize_model(clipped["densenet"], images)
    assert "conv_0_int8" not in [layer.name for layer in model.layers]
    step = clipped["densenet"].get_layer("conv_2").accumulator_quantizer.step
    last = model.get_layer("join_2")
    assert last.fraction_bits is None and step >= 1


def test_float_layers_stay_float(clipped, images):
    model = quantize_model(clipped["resnet"], images, float_layers="float32")
    kinds = {layer.name: type(layer).__name__ for layer in model.layers}
    floats = {"stem": "Conv2D", "stem_norm": "BatchNormalization", "shortcut_norm": "BatchNormalization"}
    assert {name: kinds[name] for name in floats} == floats
    assert kinds["norm_0"] == "FixedPointBatchNormalization" and kinds["classifier"] == "Dense"
    assert "image_int8" not in kinds and "stem_norm_int8" in kinds
    expected = clipped["resnet"](images).numpy()
    assert np.abs(model(images) - expected).max() < np.abs(expected).max()


@pytest.mark.parametrize("float_layers", ["int8", "float32"])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_close_to_the_float_model(clipped, images, name, float_layers):
    model, report = quantize_model(clipped[name], images, float_layers=float_layers, residual_bits=16, report=True)
    rows = {row.layer: row for row in report}
    assert set(rows) == {layer.name for layer in model.layers} - {"image", "softmax"}
    assert rows["stem"].snr_db > 25
    flipped = {row.layer: row.flipped_signs for row in report if row.flipped_signs is not None}
    assert set(flipped) == {layer.name for layer in model.layers if hasattr(layer, "accumulator_quantizer")}
    assert all(share < 0.05 for share in flipped.values())
    assert rows[report[-1].layer].snr_db > 10


def test_the_report_counts(clipped, images):
    model, report = quantize_model(clipped["resnet"], images, report=True)
    rows = {row.layer: row for row in report}
    assert rows["add_1_int8"].format.startswith("int8, fraction bits")
    bits = model.get_layer("norm_1").fraction_bits
    assert rows["norm_1"].format == f"int16, fraction bits {min(bits)} to {max(bits)}"

    def tensors(of, name):
        layer = of.get_layer(name)
        return [np.asarray(t, np.float64) for t in keras.Model(of.inputs, [layer.input, layer.output])(images)]

    for name in ("conv_0", "conv_2"):
        (x, y), (seen, found) = tensors(clipped["resnet"], name), tensors(model, name)
        assert rows[name].flipped_signs == pytest.approx(np.mean((x < 0) != (seen < 0)))
        noise = np.sum((y - found) ** 2)
        expected = np.inf if noise == 0 else 10 * np.log10(np.sum(y**2) / noise)
        assert rows[name].snr_db == pytest.approx(expected)


def test_it_trains(clipped, images):
    model = quantize_model(clipped["resnet"], images)
    before = {w.name: w.numpy() for w in model.trainable_variables}
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit(images, np.arange(24) % 5, epochs=4, batch_size=12, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    still = [w.name for w in model.trainable_variables if np.array_equal(w.numpy(), before[w.name])]
    assert still == []


def test_it_trains_on_batches_of_unknown_shape(clipped, images):
    """As those of a keras.utils.Sequence: Keras traces with no axis known."""

    class Batches(keras.utils.Sequence):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return images[8 * index : 8 * index + 8], np.zeros(8, np.int64)

    quantized = quantize_model(clipped["resnet"], images)
    quantized.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = quantized.get_weights()
    assert np.isfinite(quantized.fit(Batches(), verbose=0).history["loss"][0])
    assert any(not np.array_equal(a, b) for a, b in zip(before, quantized.get_weights()))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_saved_and_loaded(clipped, images, tmp_path, suffix):
    model = quantize_model(clipped["resnet"], images)
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}", compile=False)
    np.testing.assert_array_equal(loaded(images), model(images))


def test_weights_of_the_clipped_model_load_by_name(clipped, images, tmp_path):
    model = quantize_model(clipped["densenet"], images)
    expected = model(images).numpy()
    clipped["densenet"].save_weights(tmp_path / "weights.h5")
    for layer in model.layers:
        layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    model.load_weights(tmp_path / "weights.h5", by_name=True)
    np.testing.assert_array_equal(model(images), expected)
