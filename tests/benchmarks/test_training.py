"""The accuracy experiments: images, networks, and a training that is killed and goes on."""

import importlib
import json
import sys

import larq as lq
import numpy as np
import pytest
from support import ROOT

from larq_clip._keras import keras, tf
from larq_clip.models import binary_layers, clip_model

pytestmark = pytest.mark.source

CONFIG = {
    "experiment": "tiny",
    "network": "vgg_11",
    "width": 1 / 16,
    "dataset": "cifar10",
    "images": 60,
    "batch": 20,
    "calibration_images": 20,
    "stages": [{"epochs": 3, "learning_rate": 0.003}, {"epochs": 1, "learning_rate": 0.001}],
    "steps": ["clip1"],
}


@pytest.fixture(scope="module")
def rooms():
    """The modules of the experiments, which are scripts and no package."""
    sys.path.insert(0, str(ROOT / "benchmarks/accuracy"))
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        names = "accuracy_tables", "images", "networks", "record", "train", "variants"
        yield {name: importlib.import_module(name) for name in names}
    finally:
        del sys.path[:2]


@pytest.fixture
def random_images(rooms):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (80, 32, 32, 3), np.uint8), rng.integers(0, 10, 80, np.uint8)
    return rooms["images"].Images(x[:60], y[:60], x[60:], y[60:])


@pytest.mark.parametrize(
    ("network", "binary", "parameters"),
    [("vgg_small", 5, 4_663_690), ("vgg_11", 7, 9_233_866), ("resnet_e18", 16, 11_183_562), ("densenet_28", 23, None)],
)
def test_networks_have_the_published_layers(rooms, network, binary, parameters):
    model = rooms["networks"].NETWORKS[network](1.0)
    assert len(binary_layers(model)) == binary
    assert model.output_shape == (None, 10)
    if parameters is not None:
        assert model.count_params() == parameters


def test_scaled_pixels_are_multiples_of_1_in_128(rooms):
    pixels = np.arange(256, dtype=np.uint8)
    scaled = rooms["images"].scale(pixels)
    assert scaled.dtype == np.float32
    assert np.array_equal(scaled * 128, np.arange(-128, 128))


def test_crop_and_flip_moves_and_mirrors(rooms):
    source = np.tile(np.arange(32, dtype=np.uint8)[None, None, :, None], (200, 32, 1, 3))
    found = rooms["images"].crop_and_flip(source, np.random.default_rng(1))
    inside = found[:, 16, 8:24, 0].astype(int)
    steps = np.diff(inside, axis=1)
    assert set(np.unique(steps)) == {-1, 1}
    assert 60 < np.sum(steps[:, 0] == -1) < 140
    assert set(np.unique(inside[steps[:, 0] == 1, 0] - 8)) == set(range(-4, 5))


def test_affine_augmentation_stays_near(rooms):
    y, x = np.mgrid[:32, :32]
    source = np.repeat(np.stack([x * 8, y * 8, 0 * x], -1)[None].astype(np.uint8), 20, 0)
    found = rooms["images"].rotate_zoom_shift_shear(source, np.random.default_rng(2)).astype(int)
    assert found.shape == source.shape
    moved = np.abs(found[:, 16, 16] - source[0, 16, 16].astype(int)) / 8
    assert moved.max() <= 15
    assert np.mean(moved > 0.5) > 0.2


def test_batches_depend_on_seed_and_epoch_only(rooms, random_images):
    def epoch(first_epoch, ends):
        batches = rooms["images"].Batches(random_images, 60, 20, "cifar10", seed=5, first_epoch=first_epoch)
        for _ in range(ends):
            batches.on_epoch_end()
        return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])

    (x0, y0), (x1, y1), (x2, y2) = epoch(0, 0), epoch(0, 1), epoch(1, 0)
    assert np.array_equal(x1, x2)
    assert np.array_equal(y1, y2)
    assert not np.array_equal(x0, x1)
    assert sorted(y0) == sorted(y1)


def test_data_is_found_or_the_error_says_where(rooms, random_images, tmp_path):
    load = rooms["images"].load
    with pytest.raises(FileNotFoundError, match="cifar10.npz nor the folder cifar-10-batches-py"):
        load("cifar10", tmp_path)
    with pytest.raises(ValueError, match="SVHN needs --data-dir"):
        load("svhn", None)
    with pytest.raises(ValueError, match="accepted are 'cifar10' and 'svhn'"):
        load("mnist", tmp_path)
    np.savez(tmp_path / "cifar10.npz", **random_images._asdict())
    assert all(np.array_equal(a, b) for a, b in zip(load("cifar10", tmp_path), random_images))
    np.savez(tmp_path / "svhn.npz", **{**random_images._asdict(), "x_train": np.zeros((3, 28, 28, 1), np.uint8)})
    with pytest.raises(ValueError, match=r"uint8 \(3, 28, 28, 1\)"):
        load("svhn", tmp_path)


def test_a_killed_training_goes_on_as_if_nothing_had_happened(rooms, random_images, tmp_path, monkeypatch):
    train = rooms["train"]
    whole = train.Experiment(CONFIG, 1, random_images, tmp_path / "a" / "tiny" / "seed1")
    expected = whole.run("stage1")

    interrupted = train.Experiment(CONFIG, 1, random_images, tmp_path / "b" / "tiny" / "seed1")
    original = train.Progress.on_epoch_begin

    def dies(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt
        original(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(train.Progress, "on_epoch_begin", dies)
        with pytest.raises(KeyboardInterrupt):
            interrupted.run("stage1")
    found = interrupted.run("clip1")
    assert found["epochs"] == 1
    resumed = json.loads(interrupted.path("stage1", "json").read_text())
    assert resumed["accuracy"] == expected["accuracy"]
    for one, other in zip(whole.model("stage1").get_weights(), interrupted.model("stage1").get_weights()):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)

    records = rooms["record"].gather(tmp_path / "b")
    assert [r["variant"] for r in records] == ["stage1", "clip1"]
    assert [len(r["curve"]) for r in records] == [3, 1]
    assert len(rooms["record"].merge(records, records)) == 2


@pytest.mark.parametrize("strides", [1, 2])
def test_partial_sums_saturate_only_beyond_the_limit(rooms, strides):
    rng = np.random.default_rng(3)
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "padding": "same", "pad_values": 1.0}
    model = keras.Sequential(
        [keras.Input((6, 6, 150)), lq.layers.QuantConv2D(4, 3, strides=strides, use_bias=False, **quantizers)]
    )
    clipped = clip_model(model)
    x = rng.standard_normal((2, 6, 6, 150)).astype(np.float32)
    saturating = rooms["variants"].saturate_partial_sums(clipped)
    assert np.array_equal(saturating(x), clipped(x))  # random signs: no running sum reaches the limit
    ordered = np.broadcast_to(np.linspace(1, -1, 9).reshape(3, 3, 1, 1), (3, 3, 150, 4)).astype(np.float32)
    clipped.set_weights([ordered, *clipped.get_weights()[1:]])
    saturating = rooms["variants"].saturate_partial_sums(clipped)
    ones = tf.ones((1, 6, 6, 150))
    centre = np.asarray(saturating(ones))[0, 1, 1, 0], np.asarray(clipped(ones))[0, 1, 1, 0]
    assert centre == (-127.0, 127.0)  # five taps of +1, then four of -1: 150 in all


def test_the_readmes_hold_the_recorded_figures(rooms):
    tables = rooms["accuracy_tables"]
    records = json.loads(tables.RESULTS.read_text())
    for path in tables.READMES:
        assert tables.render(path, records) == path.read_text()
    for record in records:
        if record["variant"].startswith("runtime@"):
            assert record["differing_predictions"] == 0


def test_differences_are_taken_seed_by_seed(rooms):
    tables = rooms["accuracy_tables"]
    assert tables.gain({1: 61.0, 2: 64.0, 4: 99.0}, {1: 60.0, 2: 61.0, 3: 0.0}) == "+2.0 ± 1.0"
    assert tables.gain({1: 59.5}, {1: 60.0}) == "−0.5"
    assert tables.gain({}, {1: 60.0}) == tables.cell([]) == "–"
    assert tables.cell([60.0, 62.0]) == "61.0 ± 1.4"
