"""The QuickNet experiment on a small network with random weights, in the format of the real archives."""

from __future__ import annotations

import json

import numpy as np
import pytest
from quicknet_support import (
    BLOCKS,
    CHANNELS,
    CLASSES,
    PHOTOS,
    SIZE,
    load,
    random_photos,
    random_weights,
    write_archives,
)

from larq_clip import arithmetic
from larq_clip.arithmetic import window_axis

pytestmark = pytest.mark.source

quicknet = load("quicknet")
quicknet_measure = load("quicknet_measure")
quicknet_model = load("quicknet_model")


@pytest.fixture(scope="module")
def weights():
    return random_weights()


@pytest.fixture(scope="module")
def model(weights):
    return quicknet_model.build(weights, SIZE)


@pytest.fixture(scope="module")
def photos():
    return random_photos()


@pytest.fixture
def files(tmp_path, weights, model, photos):
    """The arguments that name the three archives; the golden outputs are the model's own."""
    names = write_archives(tmp_path, weights, photos)
    softmax = model.predict(quicknet_model.normalize(photos), verbose=0)
    np.savez(tmp_path / "golden.npz", names=names, y=np.arange(PHOTOS) % CLASSES, softmax=softmax)
    return {f"--{name}": str(tmp_path / f"{name}.{end}") for name, end in zip(*ARCHIVES)}


ARCHIVES = (("weights", "photos", "golden"), ("npz", "zip", "npz"))


def command_line(files):
    return [part for pair in files.items() for part in pair]


# ---- The rebuilt model ----------------------------------------------------------------------------------------------


def numpy_accumulator(x, bits, stride):
    """The exact accumulator of a block, with the signs unpacked word by word."""
    unpacked = ((bits[..., None] >> np.arange(32, dtype=np.uint32)) & 1).astype(np.uint8)
    unpacked = unpacked.reshape(*bits.shape[:3], -1)
    axes = (
        window_axis(x.shape[1], 3, stride, padding="same"),
        window_axis(x.shape[2], 3, stride, padding="same"),
    )
    return arithmetic.binary_conv2d((x < 0).astype(np.uint8), unpacked, axes, pad_value=1)


def assert_affine(y, x, weights, name):
    """y = x mul + add in float32: the product and the sum are each rounded once, or the sum alone."""
    exact = x.astype(np.float64) * weights[f"{name}_mul"] + weights[f"{name}_add"]
    tolerance = 2.0**-24 * (np.abs(x * weights[f"{name}_mul"]) + np.abs(exact)) * (1 + 2.0**-20)
    assert np.all(np.abs(y - exact) <= tolerance)


def numpy_stem(x, weights):
    """The stem in float64, window by window."""

    def windows(x):
        rows, columns = (window_axis(size, 3, 2, padding="same") for size in x.shape[1:3])
        after = [max(0, (a.out - 1) * 2 + 3 - a.size - a.pad_before) for a in (rows, columns)]
        x = np.pad(x, ((0, 0), (rows.pad_before, after[0]), (columns.pad_before, after[1]), (0, 0)))
        view = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2]
        assert view.shape[1:3] == (rows.out, columns.out)
        return view  # (batch, rows, columns, channels, 3, 3)

    y = np.einsum("nyxcij,oijc->nyxo", windows(x.astype(np.float64)), weights["stem_conv_w"]) + weights["stem_conv_b"]
    per_input = CHANNELS // y.shape[-1]
    y = np.einsum("nyxcij,ijc->nyxc", windows(np.repeat(y, per_input, axis=3)), weights["stem_dw_w"][0])
    y = np.maximum(y + weights["stem_dw_b"], 0)
    return y * weights["stem_bn_mul"] + weights["stem_bn_add"]


def test_rebuilt_model_computes_what_the_archive_says(weights, model, photos):
    from larq_clip._keras import keras

    # Layer by layer on what Keras itself fed the layer: signs near zero may differ between float engines.
    image = quicknet_model.normalize(photos[:1])
    layers = [layer for layer in model.layers if layer.name != "photo"]
    probe = keras.Model(model.inputs, [layer.output for layer in layers])
    out = {layer.name: tensor.numpy() for layer, tensor in zip(layers, probe(image, training=False))}

    # Sums of 27 and of 9 products, all of magnitude below 100, in float32: 2^-24 each.
    x = out["stem_bn_bn"]
    np.testing.assert_allclose(x, numpy_stem(image, weights), atol=100 * 36 * 2.0**-24, rtol=0)

    pool = x  # the first block's shortcut
    for block in range(len(BLOCKS)):
        transition = block == 1
        accumulator = numpy_accumulator(x, weights[f"b{block}_bits"], 2 if transition else 1)
        np.testing.assert_array_equal(out[f"b{block}_conv"], accumulator)
        assert np.abs(accumulator).max() > 40  # not all alike
        relu = np.maximum(accumulator, 0).astype(np.float32)
        assert_affine(out[f"b{block}_bn"], relu, weights, f"b{block}")
        shortcut = x
        if transition:
            height, width = (-(-size // 2) for size in x.shape[1:3])
            padded = np.full((1, 2 * height, 2 * width, x.shape[3]), -np.inf, np.float32)
            padded[:, : x.shape[1], : x.shape[2]] = x
            pool = padded.reshape(1, height, 2, width, 2, -1).max((2, 4))
            np.testing.assert_array_equal(out["t0_pool"], pool)
            assert_affine(out["t0_bn"], pool, weights, "t0")
            shortcut = out["t0_bn"]
        x = out[f"b{block}_bn"] + shortcut
        np.testing.assert_array_equal(out[f"b{block}_add"], x)
        if transition:
            x = np.concatenate([shortcut, x], axis=3)
            np.testing.assert_array_equal(out["t0_concat"], x)

    features = np.maximum(x.astype(np.float64), 0).mean((1, 2))
    logits = features @ weights["fc_w"].T + weights["fc_b"]
    softmax = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    # 30 pixels, 64 channels and 2 more roundings, relative to the sum of magnitudes; exp turns that into a factor.
    error = 100 * 2.0**-24 * (features @ np.abs(weights["fc_w"]).T + np.abs(weights["fc_b"])).max()
    np.testing.assert_allclose(out["softmax"], softmax, rtol=2 * error + 1e-6, atol=0)


def test_stages_are_read_from_the_shapes(weights):
    assert quicknet_model.stages(weights) == [[0, 1], [2, 3]]
    wrong = {**weights, "b1_bits": weights["b1_bits"][:16]}
    with pytest.raises(quicknet_model.ArchiveError, match="b1_bits has 16 outputs and b2_bits 64 inputs"):
        quicknet_model.stages(wrong)


# ---- Files ----------------------------------------------------------------------------------------------------------


def test_photos_are_sorted_and_labelled(files, photos):
    from pathlib import Path

    names, pixels, classes = quicknet_model.load_photos(Path(files["--photos"]))
    assert names == sorted(names)
    np.testing.assert_array_equal(pixels, photos)
    np.testing.assert_array_equal(classes, np.arange(PHOTOS) % CLASSES)


@pytest.mark.parametrize("argument", ["--weights", "--photos", "--golden"])
def test_missing_and_wrong_files_are_named(argument, files, tmp_path):
    absent = tmp_path / "absent"
    with pytest.raises(SystemExit, match=f"there is no file {absent}"):
        quicknet.main(command_line({**files, argument: str(absent)}))
    wrong = tmp_path / "wrong"
    wrong.write_text("not an archive")
    with pytest.raises(SystemExit, match=f"{wrong} is no"):
        quicknet.main(command_line({**files, argument: str(wrong)}))


def test_an_archive_without_an_array_is_refused(tmp_path, weights):
    path = tmp_path / "weights.npz"
    for name in ("stem_dw_b", "b2_add", "t0_mul"):
        np.savez(path, **{key: value for key, value in weights.items() if key != name})
        with pytest.raises(quicknet_model.ArchiveError, match=rf"lacks the arrays \['{name}'\]"):
            quicknet_model.load_weights(path)


def test_another_network_is_not_taken_for_the_golden_one(files, tmp_path):
    np.savez(tmp_path / "weights.npz", **random_weights(seed=9))
    with pytest.raises(SystemExit, match="not the one that computed the golden outputs"):
        quicknet.main([*command_line(files), "--calibration", "2"])


def test_the_archives_must_be_named():
    with pytest.raises(SystemExit, match="2"):
        quicknet.main([])


# ---- Measuring ------------------------------------------------------------------------------------------------------


def test_rules_choose_by_what_they_say():
    a = quicknet_measure.values(2 * 600 + 1)
    counts = np.zeros(a.size, np.int64)
    counts[a == -500] = 1000
    counts[a == 100] = 9999
    counts[a == 140] = 1
    assert quicknet_measure.smallest_covering(99.9, positive=True)(a, counts) == 1
    assert quicknet_measure.smallest_covering(100, positive=True)(a, counts) == 2
    assert quicknet_measure.smallest_covering(99.9)(a, counts) == 4
    assert quicknet_measure.as_clip_model(99.9)(a, counts) == 2  # all are even
    counts[a == 3] = 1
    assert quicknet_measure.as_clip_model(99.9)(a, counts) == 1
    assert quicknet_measure.least_squares(a, counts) == 4
    assert quicknet_measure.least_squares_relu(a, counts) == 2


def test_flips_and_saturation_are_counted_exactly(model, photos):
    inputs = quicknet_model.normalize(photos)
    plain = quicknet_measure.run(model, inputs)
    np.testing.assert_allclose(plain.softmax, model.predict(inputs, verbose=0), rtol=1e-5)
    clipped = quicknet_measure.Clipped(model).run((1, 2, 1, 4), inputs)
    counts = quicknet_measure.histograms(model, inputs).counts[0].sum(0)
    a = quicknet_measure.values(counts.size)
    # The first layer sees the same signs, so it saturates as its histogram says.
    assert clipped.saturated[0] == counts[np.abs(a) > 127].sum() / counts.sum() > 0
    assert counts.sum() == PHOTOS * 12 * 10 * CHANNELS
    flipped = clipped.flipped(plain)
    assert flipped.shape == (PHOTOS, len(BLOCKS))
    assert np.all(flipped[:, 0] == 0)
    other = plain.signs[0].copy()
    other[2, 5] ^= 0b10100000
    changed = quicknet_measure.Run(plain.softmax, [other, *plain.signs[1:]], plain.sizes, [])
    assert changed.flipped(plain)[2, 0] == 2 / (12 * 10 * CHANNELS)
    assert np.count_nonzero(changed.flipped(plain)) == 1


def test_sequential_calibration_measures_behind_the_clips_before(model, photos):
    from larq_clip.models import clip_model

    inputs = quicknet_model.normalize(photos)
    clipped = quicknet_measure.Clipped(model)
    steps = clipped.sequential(inputs, quicknet_measure.as_clip_model(90))
    expected = model
    for layer in clipped.layers:
        expected = clip_model(expected, 8, "auto", [layer.name], inputs, percentile=90)
    assert steps == tuple(expected.get_layer(layer.name).accumulator_quantizer.step for layer in clipped.layers)
    # Changed steps are those of a model made with them.
    changed = clipped.run((1, 4, 1, 4), inputs)
    made = clip_model(clip_model(model, 8, 4, ["b1_conv", "b3_conv"]), 8, 1, ["b0_conv", "b2_conv"])
    np.testing.assert_allclose(changed.softmax, quicknet_measure.run(made, inputs).softmax, atol=1e-5)
    assert np.abs(changed.softmax - clipped.run((1, 1, 1, 1), inputs).softmax).max() > 1e-3


def test_the_experiment_notices_when_clip_model_chooses_otherwise(model, photos, monkeypatch):
    experiment = quicknet.Experiment(model, quicknet_model.normalize(photos), np.zeros(PHOTOS, np.int64))
    (variant,) = (variant for variant in experiment.variants(1, 1) if variant.name == "auto 99.9")
    experiment.check_auto(variant, np.array([0, 3]))
    monkeypatch.setattr(quicknet_measure, "one_pass", lambda *_: (64, 64, 64, 64))
    with pytest.raises(RuntimeError, match=r"auto 99.9: clip_model chose the steps \(64, 64, 64, 64\)"):
        experiment.check_auto(variant, np.array([0, 3]))


def test_splits_leave_photos_to_judge():
    splits = quicknet.random_splits(10, 4, 3, seed=0)
    assert [len(set(split)) for split in splits] == [4, 4, 4]
    with pytest.raises(ValueError, match="10 photos for calibration, of 10; accepted are 1 to 9"):
        quicknet.random_splits(10, 10, 1, seed=0)


def test_experiment_records_every_variant(files, tmp_path, capsys):
    output, chart = tmp_path / "results.json", tmp_path / "chart.png"
    options = ["--splits", "1", "--calibration", "2"]
    quicknet.main([*command_line(files), *options, "--output", str(output), "--chart", str(chart)])
    results = {result["variant"]: result for result in json.loads(output.read_text())}
    plain = results["plain"]
    assert plain["agreement"] == plain["golden_agreement"] == 1
    assert plain["softmax_distance"] == 0
    assert set(plain["flipped_signs"].values()) == {0}
    assert {"step 1", "step 2", "auto 99.9", "both sides 99.9", "least squares"} < set(results)
    for name, result in results.items():
        assert (result["images"], result["images_all"]) == (PHOTOS - 2, PHOTOS)
        assert set(result["flipped_signs"]) == {f"b{block}_conv" for block in range(len(BLOCKS))}
        assert {"experiment", "model", "dataset", "accuracy", "machine", "date", "command"} <= set(result)
        assert (name == "plain") == (not result["steps"])
        assert str(tmp_path) not in json.dumps(result)
    assert results["step 2"]["steps"] == [{"steps": [2] * len(BLOCKS), "splits": 1}]
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert "| auto 99.9 |" in capsys.readouterr().out
