"""The end-to-end benchmark: the worker's protocol, the summary and the tables."""

import importlib
import json
import sys

import numpy as np
import pytest
from support import ROOT, small_vgg

pytestmark = pytest.mark.source

FOLDER = ROOT / "benchmarks/end_to_end"


@pytest.fixture(scope="module")
def modules():
    sys.path[:0] = [str(FOLDER), str(ROOT / "benchmarks")]
    yield importlib.import_module("measure"), importlib.import_module("tables")
    del sys.path[:2]


def test_larq_clip_beside_itself(modules, tmp_path):
    import larq_clip

    measure, tables = modules
    data = larq_clip.convert_keras_model(small_vgg())
    for file in ("integer.lcb", "plain.lcb"):
        (tmp_path / file).write_bytes(data)
    shape = larq_clip.Interpreter(data).inputs[0].shape
    np.save(tmp_path / "image.npy", np.zeros((1, *shape), np.float32))
    made = {file: None if file.endswith(".lcb") else "not made" for _, _, file in measure.SUBJECTS}
    (tmp_path / "models.json").write_text(json.dumps(made))
    records = measure.measure("small", tmp_path, tmp_path / "no_peers", 5, (1, 2))
    assert [(r["precision"], r["threads"]) for r in records] == [
        ("integer", 1),
        ("plain", 1),
        ("integer", 2),
        ("plain", 2),
    ]
    for record in records:
        assert record["file_bytes"] == len(data) and record["rounds"] == 5
        assert record["median_ms"] > 0 and record["peak_rss_bytes"] > 0
        assert record["versions"]["larq_clip"] == larq_clip.__version__
    assert [r["ratio_to_larq_clip_integer"] for r in records if r["precision"] == "integer"] == [1, 1]
    assert len(tables.table(records).splitlines()) == 2 + 2 + 2


def test_a_network_without_an_integer_model_is_refused(modules, tmp_path):
    measure, _ = modules
    (tmp_path / "models.json").write_text(json.dumps({"integer.lcb": "ConversionError: no"}))
    with pytest.raises(RuntimeError, match="no integer model to compare with: ConversionError: no"):
        measure.measure("small", tmp_path, tmp_path, 1, (1,))


def test_ratio_is_the_median_of_ratios_not_the_ratio_of_medians(modules):
    measure, _ = modules

    class Fake:
        facts = {"version": "1", "file_bytes": 2}
        peak = 3

    slow, reference = Fake(), Fake()
    slow.times, reference.times = [10.0, 30.0, 40.0], [10.0, 10.0, 40.0]
    machine = {"cpu": "", "cores": 1, "system": "", "python": "", "date": ""}
    record = measure.summarize("m", ("litert", "int8", "f"), 1, slow, reference, machine)
    assert record["median_ms"] == 30 and record["ratio_to_larq_clip_integer"] == 1


def test_tables_are_written_between_the_markers(modules):
    _, tables = modules
    text = f"a\n<!-- {tables.MARKER} -->\nold\n<!-- /{tables.MARKER} -->\nb"
    assert tables.replace_table(text, tables.MARKER, "new", "README.md") == text.replace("old", "new")
    with pytest.raises(ValueError, match="README.md needs the markers"):
        tables.replace_table("a", tables.MARKER, "new", "README.md")
    for path in tables.READMES:
        text = path.read_text(encoding="utf-8")
        made = "Not recorded yet: `make bench-end-to-end` writes this table."
        if tables.RESULTS.exists():
            made = tables.table(json.loads(tables.RESULTS.read_text()))
        assert tables.replace_table(text, tables.MARKER, made, path) == text, "run benchmarks/end_to_end/tables.py"
