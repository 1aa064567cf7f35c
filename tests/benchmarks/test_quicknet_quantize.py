"""The QuickNet experiment goes on to an integer program: its variants, its record and the tables in the README."""

from __future__ import annotations

import json

import numpy as np
import pytest
from quicknet_support import BLOCKS, PHOTOS, SIZE, load, random_photos, random_weights, write_archives

from larq_clip import arithmetic, fixed_point
from larq_clip._keras import keras
from larq_clip.models import binary_layers, clip_model, quantize_model

pytestmark = pytest.mark.source

quicknet_model = load("quicknet_model")
quicknet_quantize = load("quicknet_quantize")
quicknet_tables = load("quicknet_tables")
quicknet_variants = load("quicknet_variants")


@pytest.fixture(scope="module")
def data():
    return quicknet_model.normalize(random_photos())


@pytest.fixture(scope="module")
def clipped(data):
    model = quicknet_model.build(random_weights(), SIZE)
    return clip_model(model, step="auto", calibration_data=data)


@pytest.fixture
def quantized(clipped, data):
    return quantize_model(clipped, data)


def output(model, name, data):
    return np.asarray(keras.Model(model.inputs, model.get_layer(name).output)(data), np.float64)


# ---- Variants -------------------------------------------------------------------------------------------------------


def test_sign_after_rounding_sees_what_is_stored(clipped, quantized, data):
    copy = quicknet_variants.sign_after_rounding(quantized, clipped, data)
    sources = {layer.name: layer.input.node.layer.name for layer in binary_layers(copy)}
    assert sources == {
        "b0_conv": "stem_bn_bn_int8",
        "b1_conv": "b0_add_int8",
        "b2_conv": "t0_concat",
        "b3_conv": "b2_add_int8",
    }
    signs = arithmetic.sign_bits(output(copy, "b0_add_int8", data))
    kernel = arithmetic.sign_bits(np.moveaxis(copy.get_layer("b1_conv").kernel.numpy(), -1, 0))
    axes = tuple(arithmetic.window_axis(size, 3, 2, padding="same") for size in signs.shape[1:3])
    step = clipped.get_layer("b1_conv").accumulator_quantizer.step
    expected = step * arithmetic.clip_accumulator(arithmetic.binary_conv2d(signs, kernel, axes, 1), 8, step)
    np.testing.assert_array_equal(output(copy, "b1_conv", data), expected)
    assert np.any(output(quantized, "b1_conv", data) != expected)
    with pytest.raises(ValueError, match="has a stored tensor to see; quantize it first"):
        quicknet_variants.sign_after_rounding(clipped, clipped, data)


def rounding_errors(y, candidates):
    y = y.reshape(-1, y.shape[-1])
    return [fixed_point.values(fixed_point.store_reals(y, f), f) - y for f in candidates]


def test_formats_of_least_squared_error(clipped, quantized, data):
    quicknet_variants.least_squared_error(quantized, clipped, data)
    candidates = np.arange(-8, 25)
    for name in ("b0_add", "pool", "stem_bn_bn"):
        chosen = np.array(quantized.get_layer(f"{name}_int8").fraction_bits)
        errors = np.array([(e**2).sum(0) for e in rounding_errors(output(clipped, name, data), candidates)])
        at_chosen = np.take_along_axis(errors, np.searchsorted(candidates, chosen)[None], 0)[0]
        np.testing.assert_allclose(at_chosen, errors.min(0), rtol=1e-6)
    assert quantized.get_layer("classifier").input_fraction_bits == quantized.get_layer("pool_int8").fraction_bits


def test_formats_that_flip_fewest_signs(clipped, quantized, data):
    quicknet_variants.fewest_flipped_signs(quantized, clipped, data)
    better = 0
    for name, sums in {
        "stem_bn_bn": [("b0_add", slice(0, 32))],
        "t0_bn": [("b1_add", slice(0, 32)), ("b2_add", slice(0, 32))],  # the second behind the concatenation
        "b1_add": [("b2_add", slice(32, 64))],
    }.items():
        y = output(clipped, name, data)
        exact = np.stack([output(clipped, total, data)[..., part].reshape(-1, 32) for total, part in sums])
        largest = fixed_point.storage_fraction_bits(np.abs(y).reshape(-1, 32).max(0))
        errors = rounding_errors(y, [largest + k for k in range(quicknet_variants.CANDIDATES)])
        flips = np.array([((exact < 0) != (exact + e < 0)).reshape(-1, 32).sum(0) for e in errors])
        chosen = np.array(quantized.get_layer(f"{name}_int8").fraction_bits) - largest
        np.testing.assert_array_equal(np.take_along_axis(flips, chosen[None], 0)[0], flips.min(0))
        better += np.count_nonzero(flips.min(0) < flips[0])
    assert better > 0


def test_exactness_is_checked_bit_for_bit(quantized, data, monkeypatch):
    names = [
        layer.name for layer in quantized.layers if layer.name.startswith(("b0_", "b2_")) and "relu" not in layer.name
    ]
    assert len(names) == 8
    assert quicknet_variants.inexact_layers(quantized, data, names) == []
    correct = arithmetic.clip_accumulator
    monkeypatch.setattr(arithmetic, "clip_accumulator", lambda a, *rest: correct(a + 8 * (a == 0), *rest))
    assert quicknet_variants.inexact_layers(quantized, data, names) == ["b0_conv", "b2_conv"]
    with pytest.raises(TypeError, match="layer 'pool' is a GlobalAveragePooling2D"):
        quicknet_variants.inexact_layers(quantized, data, ["pool"])


# ---- The experiment -------------------------------------------------------------------------------------------------


def test_every_photo_is_judged_once_and_not_calibrated_on():
    pairs = quicknet_quantize.halves(11, seed=3)
    assert sorted(np.concatenate([judged for _, judged in pairs])) == list(range(11))
    assert all(not set(calibration) & set(judged) for calibration, judged in pairs)
    with pytest.raises(ValueError, match="1 photos; accepted are at least 2"):
        quicknet_quantize.halves(1, seed=0)


def test_versions_are_mirrored_and_moved():
    photos = random_photos()
    plain, mirrored, moved = quicknet_quantize.versions(photos)
    np.testing.assert_array_equal(plain, photos)
    np.testing.assert_array_equal(mirrored[:, :, 0], photos[:, :, -1])
    np.testing.assert_array_equal(moved[:, 8:, :-8], photos[:, :-8, 8:])
    np.testing.assert_array_equal(moved[:, 3, :-8], photos[:, 0, 8:])


def test_rows_are_recorded_and_resumed(tmp_path, monkeypatch, capsys):
    write_archives(tmp_path, random_weights(), random_photos())
    record = tmp_path / "record.json"
    record.write_text(json.dumps([{"experiment": "another", "variant": "all int8"}]))
    variants = [v for v in quicknet_variants.VARIANTS if v.name in ("clip only", "all int8", "sign after rounding")]
    monkeypatch.setattr(quicknet_quantize, "VARIANTS", variants[:2])
    paths = {"weights": "weights.npz", "photos": "photos.zip", "output": "record.json", "chart": "chart.png"}
    command = [part for name, path in paths.items() for part in (f"--{name}", str(tmp_path / path))]
    quicknet_quantize.main(command)
    other, clip, int8 = json.loads(record.read_text())
    assert other == {"experiment": "another", "variant": "all int8"}
    assert (clip["variant"], int8["variant"]) == ("clip only", "all int8")
    assert (clip["agreement_clipped"], set(clip["flipped_against_clipped"].values())) == (1, {0})
    assert int8["exact"] is True and 0 < int8["flipped_signs"]["b1_conv"] < 0.5
    assert {row["layer"] for row in int8["report"]} > {"b0_conv", "b2_add_int8", "classifier"}
    assert len(clip["flipped_signs"]) == len(BLOCKS) and int8["images"] == PHOTOS
    monkeypatch.setattr(quicknet_quantize, "VARIANTS", variants)
    quicknet_quantize.main([*command, "--resume"])
    assert "1/1 sign after rounding" in capsys.readouterr().out
    rows = json.loads(record.read_text())
    assert rows[1:3] == [clip, int8] and rows[3]["variant"] == "sign after rounding"
    assert rows[3]["flipped_signs"]["b1_conv"] > int8["flipped_signs"]["b1_conv"]


# ---- Tables ---------------------------------------------------------------------------------------------------------


def test_the_readme_has_the_recorded_figures():
    text = quicknet_tables.README.read_text()
    assert quicknet_tables.with_tables(text) == text, "run python benchmarks/accuracy/quicknet_tables.py"
    recorded = [row["variant"] for row in quicknet_tables.read_rows(quicknet_tables.RECORD, quicknet_tables.QUANTIZE)]
    assert recorded == [variant.name for variant in quicknet_variants.VARIANTS if variant.name in recorded]
    assert {"clip only", "all int8", "float stem and classifier"} <= set(recorded)


def test_a_changed_record_changes_the_tables(tmp_path):
    rows = quicknet_tables.read_rows(quicknet_tables.RECORD)
    rows[-1]["accuracy"] = 0.12
    (tmp_path / "record.json").write_text(json.dumps(rows))
    text = quicknet_tables.README.read_text()
    changed = quicknet_tables.with_tables(text, tmp_path / "record.json")
    different = [line for line, old in zip(changed.splitlines(), text.splitlines()) if line != old]
    assert len(different) == 1 and different[0].startswith(f"| {rows[-1]['variant']} | 12 |")
    with pytest.raises(ValueError, match="needs the markers"):
        quicknet_tables.with_tables(text.replace("<!-- clip table -->", ""))


def test_other_experiments_rows_are_kept(tmp_path):
    path = tmp_path / "record.json"
    quicknet_tables.replace_rows(path, "one", [{"experiment": "one", "n": 1}])
    quicknet_tables.replace_rows(path, "two", [{"experiment": "two", "n": 1}])
    quicknet_tables.replace_rows(path, "one", [{"experiment": "one", "n": 2}])
    assert quicknet_tables.read_rows(path) == [{"experiment": "two", "n": 1}, {"experiment": "one", "n": 2}]
    assert quicknet_tables.read_rows(path, "two") == [{"experiment": "two", "n": 1}]
