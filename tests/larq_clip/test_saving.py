"""Clipped models as .h5, .keras and SavedModel: predictions, switch and weights survive."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

from larq_clip import layers
from larq_clip._keras import keras, lq, tf
from larq_clip.models import accumulator_clips, clip_model, set_clipping

FORMATS = [".h5", ".keras", ""]


def save(model, path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are saving your model as an HDF5", UserWarning)
        model.save(path)
    return path


def predict(model, images):
    return np.asarray(model(tf.constant(images), training=False))


@pytest.fixture(scope="module")
def trained():
    """A small model, trained a little in both stages."""
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(5)
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    model = keras.Sequential(
        [
            keras.layers.InputLayer((6, 6, 8), name="image"),
            lq.layers.QuantConv2D(8, 3, pad_values=1.0, padding="same", name="conv", **binary),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(name="flatten"),
            lq.layers.QuantDense(10, name="dense", activation="softmax", **binary),
        ],
        name="small",
    )
    model = clip_model(model, bits=4, step=2)
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = rng.standard_normal((16, 6, 6, 8)).astype(np.float32), rng.integers(0, 10, 16)
    for enabled in (True, False):
        set_clipping(model, enabled)
        model.fit(x, y, verbose=0)
    return model


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    """A function that saves the trained model, once in each format and state; it returns the path."""
    paths = {}

    def save_once(suffix, enabled):
        set_clipping(trained, enabled)
        if (suffix, enabled) not in paths:
            paths[suffix, enabled] = save(trained, tmp_path_factory.mktemp("saved") / f"model{suffix}")
        return paths[suffix, enabled]

    return save_once


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("suffix", FORMATS)
def test_saved_and_loaded_predictions_are_equal(trained, saved, images, suffix, enabled):
    set_clipping(trained, not enabled)
    other = predict(trained, images)
    set_clipping(trained, enabled)
    expected = predict(trained, images)
    assert np.any(expected != other)
    loaded = keras.models.load_model(saved(suffix, enabled), compile=suffix == ".keras")
    clips = accumulator_clips(loaded)
    assert {name: (c.bits, c.step, c.enabled) for name, c in clips.items()} == {
        name: (4, 2, enabled) for name in ("conv", "dense")
    }
    assert type(loaded.get_layer("conv")) is layers.QuantConv2D
    assert [w.shape for w in loaded.weights] == [w.shape for w in trained.weights]
    np.testing.assert_array_equal(predict(loaded, images), expected)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), trained.predict(images, verbose=0))
    set_clipping(loaded, not enabled)
    np.testing.assert_array_equal(predict(loaded, images), other)


@pytest.mark.parametrize("suffix", [".keras", ""])
def test_a_loaded_model_trains_on_and_can_be_saved_again(trained, saved, images, labels, tmp_path, suffix):
    loaded = keras.models.load_model(saved(suffix, True), compile=False)
    loaded.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    clip = accumulator_clips(loaded)["dense"]
    clip.reset_saturation()
    loaded.fit(images, labels, verbose=0)
    assert 0 < clip.saturation() < 1
    again = keras.models.load_model(save(loaded, tmp_path / f"again{suffix}"), compile=False)
    assert len(again.weights) == len(trained.weights)
    np.testing.assert_array_equal(predict(again, images), predict(loaded, images))


@pytest.mark.parametrize("enabled", [True, False])
def test_saved_model_runs_without_keras(trained, saved, images, enabled):
    serve = tf.saved_model.load(str(saved("", enabled))).signatures["serving_default"]
    (output,) = serve(tf.constant(images)).values()
    np.testing.assert_array_equal(output, predict(trained, images))


def test_another_process_loads_with_the_import_of_layers_only(trained, saved, images, tmp_path):
    paths = [str(saved(suffix, True)) for suffix in (".h5", ".keras")]
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "expected.npy", predict(trained, images))
    program = f"""
import larq_clip.layers
import numpy as np, tensorflow as tf
images, expected = np.load(r"{tmp_path / "images.npy"}"), np.load(r"{tmp_path / "expected.npy"}")
for path in {paths!r}:
    model = tf.keras.models.load_model(path, compile=False)
    assert type(model.get_layer("dense")) is larq_clip.layers.QuantDense, path
    assert np.array_equal(model(images), expected), path
print("all equal")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert "all equal" in done.stdout, done.stderr[-2000:]


def test_saving_a_nested_model(images, tmp_path):
    dense = lq.layers.QuantDense(10, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="dense")
    inner = keras.Sequential([keras.layers.InputLayer((6, 6, 8)), keras.layers.Flatten(), dense], name="inner")
    x = keras.Input((6, 6, 8))
    model = clip_model(keras.Model(x, inner(x), name="outer"), bits=3)
    assert np.abs(predict(model, images)).max() == 3
    for suffix in FORMATS:
        loaded = keras.models.load_model(save(model, tmp_path / f"model{suffix}"), compile=False)
        assert list(accumulator_clips(loaded)) == ["inner/dense"]
        np.testing.assert_array_equal(predict(loaded, images), predict(model, images))


def test_model_checkpoint_keeps_the_stage(trained, images, labels, tmp_path):
    from larq_clip.callbacks import TwoStageClipping

    path = str(tmp_path / "{epoch}.keras")
    trained.fit(
        images, labels, epochs=2, verbose=0, callbacks=[TwoStageClipping(1), keras.callbacks.ModelCheckpoint(path)]
    )
    for epoch in (1, 2):
        loaded = keras.models.load_model(path.format(epoch=epoch))
        assert {clip.enabled for clip in accumulator_clips(loaded).values()} == {epoch == 2}
