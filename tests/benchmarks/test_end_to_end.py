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


MACHINE = {"cpu": "a processor", "cores": 2, "system": "Linux", "python": "3", "date": "2026-01-01"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder as build_models.py leaves it, of which only larq_clip's files were made."""
    import larq_clip

    folder = tmp_path_factory.mktemp("small")
    data = larq_clip.convert_keras_model(small_vgg())
    interpreter = larq_clip.Interpreter(data)
    image = np.random.default_rng(1).normal(size=(1, *interpreter.inputs[0].shape)).astype(np.float32)
    for file in ("integer.lcb", "plain.lcb"):
        (folder / file).write_bytes(data)
    np.save(folder / "image.npy", image)
    expected = interpreter.predict(image)
    np.savez(folder / "expected.npz", integer=expected, binary=expected, wrong=expected[:, ::-1])
    files = ("binary.tflite", "float32.tflite", "int8.tflite", "float32.onnx", "int8.onnx")
    made = {"integer.lcb": None, "plain.lcb": None} | dict.fromkeys(files, "Error: not made")
    (folder / "models.json").write_text(json.dumps(made))
    return folder


def test_larq_clip_beside_itself(modules, small):
    import larq_clip

    measure, tables = modules
    records = measure.measure("small", small, small / "no_peers", 5, (1, 2))
    assert len(records) == 2 * len(measure.SUBJECTS)
    mine = [r for r in records if r["engine"] == "larq_clip"]
    assert [(r["precision"], r["threads"]) for r in mine] == [
        ("integer", 1),
        ("plain", 1),
        ("integer", 2),
        ("plain", 2),
    ]
    for record in mine:
        assert record["file_bytes"] == (small / "integer.lcb").stat().st_size and record["rounds"] == 5
        assert 0 < record["median_ms"] < record["open_to_first_result_ms"]
        assert 0 < record["peak_rss_bytes"] < 2**26 and record["correlation_to_keras"] == pytest.approx(1)
        assert record["versions"]["larq_clip"] == larq_clip.__version__
    assert [r["ratio_to_larq_clip_integer"] for r in mine if r["precision"] == "integer"] == [1, 1]
    for record in records:
        assert record.keys() == mine[0].keys()
        if record not in mine:
            assert record["median_ms"] is None and record["note"] == "its converter: Error: not made"
    assert len(tables.time_table(records).splitlines()) == 2 + 2 + 2
    assert len(tables.memory_table(records).splitlines()) == 2 + 1 + 2


def test_an_engine_that_computes_something_else_is_refused(modules, small):
    measure, _ = modules
    with pytest.raises(RuntimeError, match="correlation -?0.* with that of Keras; accepted is 0.9999 and more"):
        measure.Worker(("larq_clip", "integer", "integer.lcb", "wrong"), small, 1, small)
    (small / "damaged.lcb").write_bytes((small / "integer.lcb").read_bytes()[:-100])
    with pytest.raises(RuntimeError, match=r"ended with code 1 and said last, in .*integer-1.log: .*damaged.lcb"):
        measure.Worker(("larq_clip", "integer", "damaged.lcb", "integer"), small, 1, small)


def test_a_further_call_goes_on(modules, small, monkeypatch):
    measure, _ = modules
    calls = []

    def fake(name, folder, peers, rounds, threads):
        calls.append((name, rounds))
        subject = measure.describe_subject(name, measure.SUBJECTS[0], 1, MACHINE)
        return [subject | {"note": "not run"}]

    def call(*options):
        arguments = ["--work", str(small.parent), "--output", str(small / "all.json"), "--models", small.name, *options]
        monkeypatch.setattr(sys, "argv", ["measure.py", *arguments])
        measure.main()

    monkeypatch.setattr(measure, "measure", fake)
    call("--build-only")
    call("--rounds", "7")
    call("--rounds", "7")
    assert calls == [(small.name, 7)] and len(json.loads((small / "all.json").read_text())) == 1
    call("--rounds", "8")
    call("--rounds", "8", "--fresh")
    assert calls[1:] == [(small.name, 8)] * 2


def test_a_network_without_an_integer_model_is_refused(modules, tmp_path):
    measure, _ = modules
    (tmp_path / "models.json").write_text(json.dumps({"integer.lcb": "ConversionError: no"}))
    with pytest.raises(RuntimeError, match="no integer model to compare with: ConversionError: no"):
        measure.measure("small", tmp_path, tmp_path, 1, (1,))


def test_ratio_is_the_median_of_ratios_not_the_ratio_of_medians(modules):
    measure, _ = modules

    class Fake:
        facts = {"version": "1", "file_bytes": 2, "correlation": 1.0}
        open_to_first_result_ms = 3.0
        peak = 3

    slow, reference = Fake(), Fake()
    slow.times, reference.times = [10.0, 30.0, 40.0], [10.0, 10.0, 40.0]
    record = measure.summarize("m", ("litert", "int8", "f", "ordinary"), 1, slow, reference, MACHINE)
    assert record["median_ms"] == 30 and record["ratio_to_larq_clip_integer"] == 1


def test_tables_are_written_between_the_markers(modules):
    _, tables = modules
    text = f"a\n<!-- {tables.MARKER} -->\nold\n<!-- /{tables.MARKER} -->\nb"
    assert tables.replace_table(text, tables.MARKER, "new", "README.md") == text.replace("old", "new")
    with pytest.raises(ValueError, match="README.md needs the markers"):
        tables.replace_table("a", tables.MARKER, "new", "README.md")
    for path, markers in tables.READMES.items():
        for marker in markers:
            text = path.read_text(encoding="utf-8")
            made = "Not recorded yet: `make bench-end-to-end` writes this table."
            if tables.RESULTS.exists():
                made = tables.TABLES[marker](json.loads(tables.RESULTS.read_text()))
            assert tables.replace_table(text, marker, made, path) == text, "run benchmarks/end_to_end/tables.py"


def test_tables_and_charts_of_records(modules, monkeypatch, tmp_path):
    measure, tables = modules
    numbers = {"median_ms": 2.0, "ratio_to_larq_clip_integer": 1.5, "open_to_first_result_ms": 5.0, "rounds": 9}
    numbers |= {"peak_rss_bytes": 3_000_000, "file_bytes": 1_500_000}
    records = [
        measure.describe_subject("m", subject, threads, MACHINE) | (numbers if subject[0] != "litert" else {})
        for threads in (1, 2)
        for subject in measure.SUBJECTS
    ]
    lines = tables.time_table(records).splitlines()
    assert "LiteRT" not in lines[0] and lines[2].startswith("| m | 1 | 2.00 ms | 2.00 ms (1.5×) | 2.00 ms (1.5×) |")
    assert "Median of 9 interleaved" in lines[-1] and "not optimized for x86" in lines[-1]
    assert "| 1.50 MB, 3.0 MB, 2.5× |" in tables.memory_table(records)
    (tmp_path / "r.json").write_text(json.dumps(records))
    readme = tmp_path / "README.md"
    readme.write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in tables.TABLES))
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "r.json")
    monkeypatch.setattr(tables, "CHARTS", (tmp_path / "a.png", tmp_path / "b.png"))
    monkeypatch.setattr(tables, "READMES", {readme: tuple(tables.TABLES)})
    tables.main()
    assert lines[2] in readme.read_text()
    assert all(chart.read_bytes().startswith(b"\x89PNG") for chart in tables.CHARTS)
