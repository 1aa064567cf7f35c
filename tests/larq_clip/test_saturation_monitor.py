"""SaturationMonitor: exact counts of what the layers compute, the three kinds of output, resuming, no side effects."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from larq_clip._callbacks.histogram import Histogram
from larq_clip._callbacks.saturation_monitor import measure
from larq_clip._keras import keras, lq, tf
from larq_clip.callbacks import SaturationMonitor, ThresholdRange, TwoStageClipping
from larq_clip.models import clip_model, set_clipping
from larq_clip.quantizers import AccumulatorClip

BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
X = np.random.default_rng(0).standard_normal((12, 4, 4, 8)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 12)


def build(step=1):
    keras.utils.set_random_seed(3)
    layers = [
        keras.layers.InputLayer((4, 4, 8), name="image"),
        lq.layers.QuantConv2D(8, 3, use_bias=False, name="conv", **BINARY),
        keras.layers.MaxPool2D(2, name="pool"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Flatten(name="flatten"),
        lq.layers.QuantDense(3, activation="softmax", name="dense", **BINARY),
    ]
    model = clip_model(keras.Sequential(layers), bits=4, step=step)
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    return model


def rows_of(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def counts(row):
    return [int(row[f"count_{i}"]) for i in range(sum(name.startswith("count_") for name in row))]


# ---- Histograms -----------------------------------------------------------------------------------------------------


def test_histogram_counts_everything_exactly(rng):
    values = rng.integers(-300, 301, 5000) * 2
    histogram = Histogram(1, 127)
    for part in np.array_split(values, 7):
        histogram.add(part.astype(np.float32))
    histogram.add(np.array([np.nan, np.inf]))
    assert (histogram.elements, histogram.not_finite) == (5000, 2)
    assert histogram.beyond == np.count_nonzero(np.abs(values) > 127)
    assert (histogram.minimum, histogram.maximum) == (values.min(), values.max())
    np.testing.assert_allclose([histogram.mean, histogram.deviation], [values.mean(), values.std()])
    for count in (2, 7, 64, 1000):
        bins = histogram.bins(count)
        np.testing.assert_array_equal(bins.counts, np.histogram(values, bins.edges)[0])
        assert bins.counts.sum() == 5000 and len(bins.counts) == count
        assert bins.width % 2 == 0  # no comb
    assert bins.width == 2


def test_histogram_of_nothing_and_of_one_value():
    histogram = Histogram(0.5)
    assert histogram.bins(4).counts.tolist() == [0] * 4 and np.isnan(histogram.share_beyond)
    histogram.add(np.full(3, 1.2))
    bins = histogram.bins(4)
    assert (bins.left, bins.counts.tolist()) == (1.0, [3, 0, 0, 0])
    assert histogram.deviation == pytest.approx(0, abs=1e-6)  # of the order of the root of float64's precision
    histogram.add(np.array([1e30, -1e30]))
    assert histogram.bins(4).counts.sum() == 5


# ---- What is measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("step", [1, 2])
def test_measures_what_the_layers_compute(enabled, step):
    model = build(step)
    set_clipping(model, enabled)
    conv, dense = measure(model, X)
    unclipped = build(step)
    set_clipping(unclipped, False)
    a = keras.Model(unclipped.inputs, unclipped.get_layer("conv").output)(X).numpy()
    c = keras.Model(model.inputs, model.get_layer("conv").output)(X).numpy()
    n = keras.Model(model.inputs, model.get_layer("norm").output)(X).numpy()
    limit = 7 * step
    assert (conv.path, conv.norm, dense.path, dense.norm) == ("conv", "norm", "dense", None)
    for histogram, tensor in ((conv.accumulator, a), (conv.clipped, c), (conv.normalized, n)):
        assert histogram.elements == tensor.size
        np.testing.assert_array_equal(histogram.cells, np.unique(np.floor(tensor / histogram.grid)))
        found = dict(zip(histogram.cells, histogram.counts))
        values, number = np.unique(np.floor(tensor / histogram.grid), return_counts=True)
        assert found == dict(zip(values, number))
    assert conv.accumulator.beyond == np.count_nonzero(np.abs(a) > limit) > 0
    assert (conv.clipped.beyond == 0) == enabled
    assert [name for name, _ in dense.tensors()] == ["accumulator", "clipped"]


def test_nested_shared_wrapped_and_free_standing_clips():
    x = keras.Input((3, 4, 4, 8))
    conv = keras.Sequential(
        [keras.layers.InputLayer((4, 4, 8)), lq.layers.QuantConv2D(8, 3, padding="same", name="conv", **BINARY)], "in"
    )
    conv = clip_model(conv, bits=3)
    y = keras.layers.BatchNormalization(name="norm")(conv(conv(x[:, 0])))
    free = AccumulatorClip(bits=2, name="free")(lq.layers.QuantDense(4, name="d", **BINARY)(keras.layers.Flatten()(y)))
    model = keras.Model(x, free)
    found = {layer.path: layer for layer in measure(model, np.stack([X] * 3, 1))}
    assert set(found) == {"in/conv", "free"}
    assert found["in/conv"].accumulator.elements == 2 * 12 * 4 * 4 * 8  # used twice
    assert found["in/conv"].norm == "norm"
    assert found["free"].accumulator.elements == 12 * 4


def test_groups_and_kinds_of_samples():
    layers = [
        keras.layers.InputLayer((4, 4, 8), name="image"),
        lq.layers.QuantConv2D(8, 3, groups=2, name="conv", **BINARY),
        keras.layers.BatchNormalization(name="norm"),
    ]
    model = clip_model(keras.Sequential(layers), bits=4)
    expected = measure(model, X)[0].accumulator
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    for samples in (dataset, [X[:7], X[7:]], {"image": X}):
        found = measure(model, samples)[0].accumulator
        np.testing.assert_array_equal(found.counts, expected.counts)


# ---- Files ----------------------------------------------------------------------------------------------------------


def test_all_outputs(tmp_path):
    monitor = SaturationMonitor(
        X, every=2, csv=tmp_path / "s.csv", plots=tmp_path / "plots", log_dir=tmp_path / "logs", bins=8
    )
    build().fit(X, Y, epochs=5, verbose=0, callbacks=[TwoStageClipping(3), monitor])
    rows = rows_of(tmp_path / "s.csv")
    keys = [(r["epoch"], r["layer"], r["tensor"], r["norm"]) for r in rows]
    conv = [("conv", tensor, "norm") for tensor in ("accumulator", "clipped", "normalized")]
    dense = [("dense", tensor, "") for tensor in ("accumulator", "clipped")]
    assert keys == [(epoch, *key) for epoch in "13" for key in conv + dense]
    assert [r["enabled"] for r in rows] == ["0"] * 5 + ["1"] * 5
    for row in rows:
        assert sum(counts(row)) == int(row["elements"]) > 0 and len(counts(row)) == 8
        assert (row["bits"], row["step"], row["limit"]) == ("4", "1", "7")
        if row["tensor"] == "normalized":
            assert row["share_beyond"] == row["beyond"] == ""
        else:
            assert float(row["share_beyond"]) == int(row["beyond"]) / int(row["elements"])
    first = {r["tensor"]: r for r in rows[:3]}
    assert float(first["accumulator"]["share_beyond"]) == float(first["clipped"]["share_beyond"]) > 0
    assert int(rows[6]["beyond"]) == 0 < int(rows[5]["beyond"])

    pictures = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert pictures == ["epoch-0001.png", "epoch-0003.png"]
    from matplotlib import image

    assert image.imread(tmp_path / "plots" / "epoch-0001.png").std() > 0.05

    (events,) = (tmp_path / "logs").iterdir()
    found = {}
    for event in tf.compat.v1.train.summary_iterator(str(events)):
        for value in event.summary.value:
            found[event.step, value.tag] = tf.make_ndarray(value.tensor), value.metadata.plugin_data.plugin_name
    assert sorted(found) == sorted(
        (epoch, f"{layer}/{name}")
        for epoch in (1, 3)
        for layer, names in (
            ("conv", ["share_beyond", "accumulator", "clipped", "normalized"]),
            ("dense", ["share_beyond", "accumulator", "clipped"]),
        )
        for name in names
    )
    table, plugin = found[1, "conv/accumulator"]
    assert plugin == "histograms" and table.shape == (8, 3)
    assert table[:, 2].tolist() == counts(first["accumulator"]) and table[0, 0] == float(first["accumulator"]["left"])
    share, plugin = found[1, "conv/share_beyond"]
    assert plugin == "scalars" and share == np.float32(first["accumulator"]["share_beyond"])


@pytest.mark.parametrize("output", ["csv", "plots", "log_dir"])
def test_each_output_alone(tmp_path, output):
    build().fit(X, Y, epochs=1, verbose=0, callbacks=[SaturationMonitor(X[:2], **{output: tmp_path / "it"})])
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_training_is_the_same_with_the_monitor(tmp_path):
    def weights_after(callbacks):
        model = build()
        history = model.fit(X, Y, batch_size=4, epochs=3, verbose=0, callbacks=[TwoStageClipping(1), *callbacks])
        return model.get_weights(), history.history

    weights, history = weights_after([])
    monitor = SaturationMonitor(X, csv=tmp_path / "s.csv")
    watched, watched_history = weights_after([monitor])
    for a, b in zip(weights, watched):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_equal(history, watched_history)


def test_under_a_distribution_strategy(tmp_path):
    with tf.distribute.MirroredStrategy(["cpu:0"]).scope():
        model = build()
        model.compile("sgd", "sparse_categorical_crossentropy")
    callbacks = [TwoStageClipping(1, monitor="loss", restart_factor=2), ThresholdRange("batch"),
                 SaturationMonitor(X, csv=tmp_path / "s.csv")]  # fmt: skip
    model.get_layer("norm").beta.assign([99.0] * 8)
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=callbacks).history
    assert len(rows_of(tmp_path / "s.csv")) == 3 * 5
    assert history["conv_thresholds_moved"][0] == 0 < history["conv_thresholds_moved"][1]
    np.testing.assert_allclose(keras.backend.get_value(model.optimizer.learning_rate), 0.02)


# ---- Resuming -------------------------------------------------------------------------------------------------------


class InterruptAt(keras.callbacks.Callback):
    def __init__(self, epoch, action):
        super().__init__()
        self.epoch, self.action = epoch, action

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.action()


def interrupt():
    raise KeyboardInterrupt


def train(folder, *before_backup):
    """Its table, when whole, is the same however often training was interrupted."""
    monitor = SaturationMonitor(X, csv=folder / "s.csv", bins=4)
    backup = keras.callbacks.BackupAndRestore(str(folder / "backup"))
    build().fit(
        X, Y, shuffle=False, epochs=4, verbose=0, callbacks=[TwoStageClipping(2), monitor, *before_backup, backup]
    )


@pytest.mark.parametrize("epoch", [0, 2])
def test_interrupted_between_table_and_backup(tmp_path, epoch):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(resumed, InterruptAt(epoch, interrupt))
    assert [r["epoch"] for r in rows_of(resumed / "s.csv")][::5] == [str(e) for e in range(epoch + 1)]
    train(resumed)
    assert (resumed / "s.csv").read_text() == (whole / "s.csv").read_text()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import larq_clip
from test_saturation_monitor import InterruptAt, train
train(Path("."), InterruptAt(2, lambda: os.kill(os.getpid(), signal.SIGKILL)))
"""


def test_a_killed_process_is_continued(tmp_path):
    program = KILLED.format(tests=str(Path(__file__).parent))
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr[-3000:]
    train(tmp_path)
    whole = tmp_path / "whole"
    whole.mkdir()
    train(whole)
    assert (tmp_path / "s.csv").read_text() == (whole / "s.csv").read_text()


def test_tables_of_others_are_left_alone(tmp_path):
    path = tmp_path / "s.csv"
    model = build()

    def fit(bins=4, **arguments):
        monitor = SaturationMonitor(X[:2], csv=path, bins=bins)
        model.fit(X, Y, verbose=0, callbacks=[monitor], **arguments)

    fit(epochs=3)
    content = path.read_text()
    for arguments in ({}, {"epochs": 2, "initial_epoch": 1}):
        with pytest.raises(ValueError, match=r"s.csv holds epochs up to 2, but training starts at epoch \d"):
            fit(**arguments)
    with pytest.raises(ValueError, match="not a table of SaturationMonitor with 8 bins"):
        fit(bins=8, epochs=4, initial_epoch=3)
    assert path.read_text() == content
    fit(epochs=4, initial_epoch=3)
    assert path.read_text().startswith(content) and len(rows_of(path)) == 4 * 5
    path.write_text(content[:-20])
    with pytest.raises(ValueError, match="or is damaged"):
        fit(epochs=4, initial_epoch=3)


# ---- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "no output is asked for; give at least one of log_dir, csv and plots"),
        ({"every": 0, "csv": "a"}, ValueError, "every is 0; accepted are the integers from 1"),
        ({"bins": 1, "csv": "a"}, ValueError, "bins is 1; accepted are the integers from 2 to 1024"),
        ({"csv": "nowhere/a.csv"}, FileNotFoundError, "the folder nowhere does not exist"),
        ({"plots": "nowhere/plots"}, FileNotFoundError, "the folder nowhere does not exist"),
        ({"samples": iter([X]), "csv": "a"}, TypeError, "samples is of type list_iterator"),
        ({"samples": None, "csv": "a"}, TypeError, "samples is of type NoneType"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        SaturationMonitor(**{"samples": X, **arguments})


def test_plots_into_a_file(tmp_path):
    (tmp_path / "plots").write_text("")
    with pytest.raises(NotADirectoryError, match="it is a file; give the path of a folder"):
        SaturationMonitor(X, plots=tmp_path / "plots")


def test_samples_and_models_that_do_not_fit(tmp_path):
    def fit(samples, model=None):
        (model or build()).fit(X, Y, verbose=0, callbacks=[SaturationMonitor(samples, csv=tmp_path / "s.csv")])

    for samples, message in ((X[..., 1:], r"samples has batches of shape \(12, 4, 4, 7\)"), ([], "samples is empty")):
        with pytest.raises(ValueError, match=message):
            fit(samples)
    plain = keras.Sequential([keras.layers.InputLayer((4, 4, 8)), keras.layers.Flatten(), keras.layers.Dense(3)])
    plain.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="has no AccumulatorClip"):
        fit(X, plain)
    assert not (tmp_path / "s.csv").exists()
