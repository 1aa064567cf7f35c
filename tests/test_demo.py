"""The demo from end to end, with few images and epochs, and what it does when something is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import larq_clip
from larq_clip import demo
from larq_clip.datasets import fashion_mnist_subset
from larq_clip.datasets.idx import format_idx
from larq_clip.demo import neon
from larq_clip.errors import RuntimeLibraryError

TEST_IMAGES = 150
KEYS = {
    "stage1_accuracy",
    "stage2_accuracy",
    "runtime_accuracy",
    "differing_predictions",
    "neon_differing_predictions",
    "neon_skipped_reason",
    "file_bytes",
    "float32_bytes",
    "keras_ms_per_image",
    "runtime_ms_per_image",
    "saturation",
    "machine",
    "date",
    "versions",
    "seconds",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder and report of a small run; it trains enough to tell classes apart."""
    folder = tmp_path_factory.mktemp("demo") / "made" / "by the demo"
    found = demo.run(folder, epochs=(2, 1), train_images=1024, test_images=TEST_IMAGES, quiet=True)
    return folder, found


def write_idx(folder: Path, side: int = 8, train: int = 70, test: int = 20, classes: int = 10) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, side, side), np.uint8)
        labels = (np.arange(count) % classes).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(format_idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(format_idx(labels))
    return folder


def test_runtime_predicts_what_keras_predicts(finished):
    _, found = finished
    assert found["differing_predictions"] == 0
    assert found["runtime_accuracy"] == found["stage2_accuracy"]
    # The logits are exact; what is left is the exponential and the division of the softmax, a few units of 2^-24.
    assert found["largest_difference"] < 1e-6


def test_neon_build_predicts_what_keras_predicts_or_says_why_it_did_not_run(finished):
    _, found = finished
    if neon.why_not() is None:
        assert found["neon_differing_predictions"] == 0 and found["neon_accuracy"] == found["stage2_accuracy"]
        assert found["neon_skipped_reason"] is None
        assert found["neon_largest_difference"] == found["largest_difference"]
    else:
        assert found["neon_differing_predictions"] is None and found["neon_accuracy"] is None
        assert found["neon_skipped_reason"] == neon.why_not()


def test_it_learns(finished):
    _, found = finished
    assert found["stage1_accuracy"] > 0.4 and found["stage2_accuracy"] > 0.4


def test_report_file_holds_what_is_returned(finished):
    folder, found = finished
    assert json.loads((folder / "report.json").read_text()) == found
    assert set(found) >= KEYS
    assert found["test_images"] == TEST_IMAGES and found["train_images"] == 1024
    assert found["file_bytes"] == (folder / "model.lcb").stat().st_size
    assert found["float32_bytes"] > 20 * found["file_bytes"]
    assert found["keras_ms_per_image"] > 0 and found["runtime_ms_per_image"] > 0
    assert set(found["saturation"]) == {"conv1", "conv2", "dense"}
    assert all(0 <= share < 1 for share in found["saturation"].values())
    assert [v is None for v in found["saturation_history"]["dense"]] == [True, True, False]
    assert len(found["history"]["val_accuracy"]) == 3
    assert found["seconds"]["total"] >= found["seconds"]["training"] > 0


def test_only_the_documented_files_are_written(finished):
    folder, _ = finished
    assert {path.name for path in folder.iterdir()} == set(demo.FILES)
    assert (folder / "training.png").read_bytes().startswith(b"\x89PNG")


def test_saved_model_converts_to_the_same_file_and_both_give_the_reported_accuracy(finished):
    from larq_clip import layers, quantizers  # noqa: F401  (registered with Keras)
    from larq_clip._keras import keras
    from larq_clip.demo.model import scale_images

    folder, found = finished
    model = keras.models.load_model(folder / "model.keras")
    data = (folder / "model.lcb").read_bytes()
    assert larq_clip.convert_keras_model(model) == data
    _, (x_test, y_test) = fashion_mnist_subset()
    inputs, labels = scale_images(x_test[:TEST_IMAGES]), y_test[:TEST_IMAGES]
    scores = larq_clip.Interpreter(data, isa="scalar").predict(inputs)
    np.testing.assert_array_equal(np.argmax(scores, -1), np.argmax(model.predict(inputs, batch_size=64, verbose=0), -1))
    assert np.mean(np.argmax(scores, -1) == labels) == found["runtime_accuracy"]


class WrongInterpreter(larq_clip.Interpreter):
    """Swaps two classes of the first image's scores."""

    def predict(self, x):
        scores = super().predict(x)
        scores[0, [np.argmax(scores[0]), np.argmin(scores[0])]] = scores[0].min(), scores[0].max()
        return scores


def test_a_differing_prediction_is_a_failure_and_full_sets_are_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(larq_clip, "Interpreter", WrongInterpreter)
    monkeypatch.setattr(neon, "why_not", lambda: "not wanted in this test")
    output = tmp_path / "out"
    with pytest.raises(demo.DemoError, match=r"1 of 20 predictions of the runtime .* differ from Keras"):
        demo.run(output, full=write_idx(tmp_path), epochs=(1, 1))
    found = json.loads((output / "report.json").read_text())
    assert found["differing_predictions"] == 1 and found["train_images"] == 70 and found["test_images"] == 20
    assert found["neon_differing_predictions"] is None and found["neon_skipped_reason"] == "not wanted in this test"
    printed = capsys.readouterr().out
    assert "epoch  2/2  clipped" in printed and "accuracy after stage 1" in printed
    assert "not run:" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": (0, 1)}, r"epochs is \(0, 1\); accepted are two numbers from 1"),
        ({"epochs": (3,)}, r"epochs is \(3,\)"),
        ({"train_images": 0}, "train_images is 0; accepted are numbers from 1"),
        ({"test_images": -5}, "test_images is -5"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        demo.run(tmp_path / "out", **arguments)


def test_images_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"images have \(7, 7\) pixels; accepted are sides from 8"):
        demo.run(tmp_path / "out", full=write_idx(tmp_path, side=7))
    with pytest.raises(ValueError, match="a label 25; the demo's network has the classes 0 to 9"):
        demo.run(tmp_path / "out", full=write_idx(tmp_path, classes=26))


def test_missing_images_and_unwritable_output_are_refused_before_training(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        demo.run(tmp_path / "out", full=tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        demo.run(tmp_path / "file")
    (tmp_path / "taken" / "report.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"report\.json: it is a folder"):
        demo.run(tmp_path / "taken")


def test_pixels_become_multiples_of_1_128():
    from larq_clip.demo.model import scale_images

    scaled = scale_images(np.arange(256, dtype=np.uint8).reshape(1, 16, 16))
    assert scaled.dtype == np.float32 and scaled.shape == (1, 16, 16, 1)
    np.testing.assert_array_equal(scaled.ravel() * 128, np.arange(-128, 128))


def test_network_has_three_clipped_layers_with_more_terms_than_8_bits_hold():
    from larq_clip import models
    from larq_clip.demo.model import build_clipped_model

    model = build_clipped_model(28, 28)
    assert list(models.accumulator_clips(model)) == ["conv1", "conv2", "dense"]
    terms = {layer.name: int(np.prod(layer.kernel.shape[:-1])) for layer in models.binary_layers(model)}
    assert terms == {"conv1": 576, "conv2": 576, "dense": 1152}


def test_learning_rate_falls_in_each_stage_and_starts_again():
    from larq_clip._keras import keras
    from larq_clip.demo.training import LEARNING_RATES, CosineWithRestart, Stages

    model = keras.Sequential([keras.layers.Dense(1, input_shape=(1,))])
    model.compile(keras.optimizers.Adam(), "mse")
    schedule = CosineWithRestart(Stages(2, 1))
    schedule.set_model(model)
    schedule.set_params({"steps": 4})
    rates = []
    for epoch in range(3):
        schedule.on_epoch_begin(epoch)
        for batch in range(4):
            schedule.on_train_batch_begin(batch)
            rates.append(float(keras.backend.get_value(model.optimizer.learning_rate)))
    assert rates[0] == pytest.approx(LEARNING_RATES[0]) and rates[4] == pytest.approx(LEARNING_RATES[0] / 2)
    assert rates[8] == pytest.approx(LEARNING_RATES[1]) and rates[10] == pytest.approx(LEARNING_RATES[1] / 2)
    assert all(a > b for stage in (rates[:8], rates[8:]) for a, b in zip(stage, stage[1:], strict=False))


def test_neon_build_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(neon.platform, "machine", lambda: "aarch64")
    assert "the native runtime is the NEON build" in neon.why_not()
    monkeypatch.setattr(neon.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(neon, "find_tool", lambda *names: None)
    if neon.SOURCES.is_dir():
        assert neon.why_not() == "not installed: aarch64-linux-gnu-gcc, qemu-aarch64, cmake, ninja or make"
    monkeypatch.setattr(neon, "SOURCES", tmp_path / "runtime")
    assert "installed without its source tree" in neon.why_not()


def test_a_failing_tool_is_an_error_with_its_last_words():
    script = "import sys; print('compiling'); print('kernel.c: no such thing', file=sys.stderr); sys.exit(3)"
    with pytest.raises(RuntimeLibraryError, match=r"building failed with exit code 3: .*kernel\.c: no such thing"):
        neon.run_tool([sys.executable, "-c", script], "building")
    with pytest.raises(RuntimeLibraryError, match="no-such-program is not installed"):
        neon.require_tool("no-such-program")
