"""Both command lines on good and on bad input: one line that says what is wrong, exit code 2, nothing written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from support import IMAGE, dyadic_images, program, run_program

import larq_clip.converter
from larq_clip.cli.inspect import describe_file

PROGRAMS = ["larq-clip run", "larq-clip-run"]


@pytest.fixture
def files(tmp_path, model_bytes):
    """A folder with model.lcb, images.npy and an empty folder."""
    (tmp_path / "model.lcb").write_bytes(model_bytes)
    np.save(tmp_path / "images.npy", dyadic_images(3))
    (tmp_path / "folder").mkdir()
    return tmp_path


def command(which: str) -> list[str]:
    name, *rest = which.split()
    return [*program(name), *rest]


def times(folder) -> dict[str, int]:
    """Names and modification times of a folder's files."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def run_on(which: str, files, *, model="model.lcb", images="images.npy", output="out.npy", more=()):
    return run_program([*command(which), model, "--input", images, "--output", output, *more], cwd=files)


@pytest.mark.parametrize("which", PROGRAMS)
def test_runs_and_agrees_with_keras(which, files, keras_model):
    before = set(times(files))
    run = run_on(which, files, more=["--threads", "2", "--repeat", "2", "--json", "--profile"])
    assert run.returncode == 0, run.stderr
    assert set(times(files)) - before == {"out.npy"}
    expected = keras_model.predict(dyadic_images(3), verbose=0)
    np.testing.assert_allclose(np.load(files / "out.npy"), expected, rtol=1e-5, atol=1e-7)
    report = json.loads(run.stdout)
    assert report["images"] == 3 and report["threads"] == 2


def bad_model(files, content: bytes) -> dict:
    (files / "bad.lcb").write_bytes(content)
    return {"model": "bad.lcb"}


def bad_images(files, array: np.ndarray) -> dict:
    np.save(files / "bad.npy", array)
    return {"images": "bad.npy"}


def with_version(model_bytes: bytes, version: int) -> bytes:
    """The model file with another format version: the writer is asked, so the test knows no offsets."""
    from larq_clip.converter import codec, reader, writer

    graph = reader.read(model_bytes)
    with mock.patch.object(codec, "FORMAT_VERSION", version):
        return writer.write(graph)


def nan_image() -> np.ndarray:
    images = dyadic_images(3)
    images[1, 2, 3, 1] = np.nan
    return images


BAD = {
    "not a model file": (
        lambda files, data: bad_model(files, b"This is a letter, not a model.\n" * 9),
        "bad.lcb: not a",
    ),
    "empty file": (lambda files, data: bad_model(files, b""), "bad.lcb: not a larq_clip model file: 0 bytes"),
    "truncated file": (lambda files, data: bad_model(files, data[: len(data) // 2]), "bad.lcb: "),
    "wrong version": (
        lambda files, data: bad_model(files, with_version(data, 99)),
        "bad.lcb: the model file has format",
    ),
    "missing model": (lambda files, data: {"model": "none.lcb"}, "none.lcb"),
    "missing images": (lambda files, data: {"images": "none.npy"}, "none.npy"),
    "wrong shape": (
        lambda files, data: bad_images(files, np.zeros((2, 9, 9, 3), np.float32)),
        "has shape (2, 9, 9, 3); accepted",
    ),
    "wrong rank": (lambda files, data: bad_images(files, np.zeros((2, 5), np.float32)), "has shape (2, 5); accepted"),
    "wrong dtype": (lambda files, data: bad_images(files, np.zeros((2, *IMAGE), np.complex64)), "has dtype "),
    "NaN": (lambda files, data: bad_images(files, nan_image()), "NaN at element 82 (row 2, column 3, channel 1)"),
    "unwritable folder": (lambda files, data: {"output": "no/such/folder/out.npy"}, "no/such/folder"),
    "output is a folder": (lambda files, data: {"output": "folder"}, "folder"),
    "images are a model": (lambda files, data: {"images": "model.lcb"}, "model.lcb"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("which", PROGRAMS)
def test_bad_input_is_one_line_exit_2_and_writes_nothing(which, case, files, model_bytes):
    arguments, word = BAD[case][0](files, model_bytes), BAD[case][1]
    before = times(files)
    run = run_on(which, files, **arguments)
    assert run.returncode == 2, (run.stdout, run.stderr)
    assert len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert word in run.stderr and "Traceback" not in run.stderr
    assert times(files) == before


@pytest.mark.parametrize("which", PROGRAMS)
def test_an_earlier_output_survives_an_error(which, files):
    (files / "out.npy").write_bytes(b"precious")
    np.save(files / "bad.npy", nan_image())
    assert run_on(which, files, images="bad.npy").returncode == 2
    assert (files / "out.npy").read_bytes() == b"precious"


@pytest.mark.parametrize("which", PROGRAMS)
def test_memory_limit(which, files):
    run = run_on(which, files, more=["--json"])
    needed = json.loads(run.stdout)["session_bytes"]
    assert run_on(which, files, more=["--memory-limit", str(needed)]).returncode == 0
    (files / "out.npy").unlink()
    run = run_on(which, files, more=["--memory-limit", str(needed - 1)])
    assert run.returncode == 2 and len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert all(number in run.stderr.replace(",", "") for number in (str(needed), str(needed - 1))), run.stderr
    assert not (files / "out.npy").exists()


@pytest.mark.parametrize("which", PROGRAMS)
@pytest.mark.parametrize(
    "more",
    [
        ["--threads", "0"],
        ["--threads", "x"],
        ["--isa", "sse9"],
        ["--repeat", "-1"],
        ["--memory-limit", "0"],
        ["--colour"],
    ],
)
def test_bad_options(which, more, files):
    run = run_on(which, files, more=more)
    assert run.returncode == 2 and len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert not (files / "out.npy").exists()


@pytest.mark.parametrize("which", ["larq-clip", "larq-clip run", "larq-clip inspect", "larq-clip-run"])
def test_help(which):
    run = run_program([*command(which), "--help"])
    assert run.returncode == 0 and "sage" in run.stdout


def test_commands_that_need_no_tensorflow_do_not_import_it(files):
    script = (
        "import sys\n"
        "from larq_clip.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert stop.code in (0, None), stop.code\n"
        "roots = {name.split('.')[0] for name in sys.modules}\n"
        "assert not roots & {'tensorflow', 'tf_keras', 'larq', 'keras'}\n"
    )
    for arguments in (["--help"], ["inspect", "model.lcb"], ["run", "model.lcb", "--input", "images.npy"]):
        run = subprocess.run([sys.executable, "-c", script, *arguments], cwd=files, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "saved_model"])
def test_convert_every_kind_of_file(name, files, keras_model, model_bytes):
    keras_model.save(files / name)
    more = ["--report", "new/report"] if name == "model.h5" else []
    run = run_program([*program("larq-clip"), "convert", name, "-o", "converted.lcb", *more], cwd=files)
    assert run.returncode == 0, run.stderr
    if more:
        page = (files / "new/report/index.html").read_text(encoding="utf-8")
        assert all(op["kernel"] in page for op in describe_file(files / "converted.lcb")["ops"])
    from larq_clip import Interpreter

    images = dyadic_images(5)
    np.testing.assert_array_equal(
        Interpreter(files / "converted.lcb").predict(images), Interpreter(model_bytes).predict(images)
    )


def test_a_report_needs_a_folder(files):
    run = run_program(
        [*program("larq-clip"), "convert", "none.h5", "-o", "converted.lcb", "--report", "model.lcb"], cwd=files
    )
    assert run.returncode == 2 and "model.lcb" in run.stderr, run.stderr


@pytest.mark.parametrize("name, word", [("none.h5", "none.h5"), ("images.npy", ".npy"), ("broken.h5", "broken.h5")])
def test_convert_errors(name, word, files):
    (files / "broken.h5").write_bytes(b"no hdf5")
    run = run_program([*program("larq-clip"), "convert", name, "-o", "converted.lcb"], cwd=files)
    assert run.returncode == 2 and word in run.stderr and "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert not (files / "converted.lcb").exists()


def test_debug_shows_the_traceback(files):
    run = run_program([*program("larq-clip"), "--debug", "run", "none.lcb", "--input", "images.npy"], cwd=files)
    assert run.returncode != 0 and "Traceback" in run.stderr


def test_inspect_names_a_bad_file(files, model_bytes):
    (files / "bad.lcb").write_bytes(model_bytes[: len(model_bytes) // 2])
    run = run_program([*program("larq-clip"), "inspect", "bad.lcb"], cwd=files)
    assert run.returncode == 2 and run.stderr.startswith("larq-clip: error: bad.lcb: ") and not run.stdout


@pytest.mark.parametrize("which", PROGRAMS)
def test_several_outputs_do_not_go_into_one_file(which, files):
    from larq_clip import convert_keras_model
    from larq_clip._keras import keras

    x = keras.Input(IMAGE)
    model = keras.Model(x, [keras.layers.ReLU()(x), keras.layers.Flatten()(x)])
    (files / "two.lcb").write_bytes(convert_keras_model(model))
    run = run_on(which, files, model="two.lcb")
    assert run.returncode == 2 and "2 outputs" in run.stderr, run.stderr
    assert not (files / "out.npy").exists()


def test_inspect(files):
    text = run_program([*program("larq-clip"), "inspect", "model.lcb"], cwd=files)
    assert text.returncode == 0 and "BinaryConv2D" in text.stdout, text.stderr
    report = json.loads(run_program([*program("larq-clip"), "inspect", "model.lcb", "--json"], cwd=files).stdout)
    binary = [op for op in report["ops"] if op["type"] == "BinaryConv2D"]
    assert len(binary) == 3
    assert binary[0]["binary_macs"] == 12 * 12 * 72 * 9 * 40
    assert all(op["kernel"] for op in report["ops"])
    assert report["file_bytes"] == (files / "model.lcb").stat().st_size
    assert report["arena_bytes"] >= report["arena_lower_bound_bytes"] > 0
    for ratio, bytes_key, least_key in (
        ("size_ratio", "file_bytes", "ideal_weight_bytes"),
        ("arena_ratio", "arena_bytes", "arena_lower_bound_bytes"),
    ):
        assert report[ratio] == report[bytes_key] / report[least_key] >= 1
        assert f"{report[bytes_key]:,} bytes, {report[ratio]:.3f} times the {report[least_key]:,} " in text.stdout


def test_many_layers_in_few_words():
    from larq_clip.cli.text import layers_in_words

    assert layers_in_words("a+b\x1b") == "a+b?"
    assert layers_in_words("+".join("abcdefgh")) == "a+b+c+d+e+f+g+h"
    assert layers_in_words("+".join("abcdefghi")) == "a+b+c+d+e+f+… (9 layers) …+i"


def test_keys_of_inspect_are_those_that_are_documented(files):
    """Pins the keys: one that goes or comes needs another line here, in README.md and, if it goes, another version."""
    report = json.loads(run_program([*program("larq-clip"), "inspect", "model.lcb", "--json"], cwd=files).stdout)
    tensor = {"name", "dtype", "shape", "fraction_bits", "bytes"}
    op = {"name", "type", "kernel", "inputs", "outputs", "epilogue", "clip_limit", "step", "fixed_point"}
    op |= {"binary_macs", "int8_macs", "float_macs", "weight_bytes", "activation_bytes"}
    op |= {"threshold_dtype", "constant_channels", "float_reason"}
    top = {"report_version", "file", "name", "producer", "inputs", "outputs", "ops", "isa", "session_bytes"}
    top |= {"file_bytes", "weight_bytes", "ideal_weight_bytes", "size_ratio"}
    top |= {"arena_bytes", "arena_lower_bound_bytes", "arena_ratio", "binary_macs", "int8_macs", "float_macs"}
    assert report["report_version"] == 1 and set(report) == top
    assert all(set(found) == op for found in report["ops"])
    tensors = [*report["inputs"], *report["outputs"]]
    tensors += [t for found in report["ops"] for t in (*found["inputs"], *found["outputs"])]
    assert all(set(found) == tensor for found in tensors)
    readme = Path(larq_clip.converter.__file__).with_name("README.md").read_text(encoding="utf-8")
    section = readme.split("## `larq-clip inspect --json`")[1].split("\n## ")[0]
    tables = section.split("|---|---|")[1:]
    documented = [
        {
            key
            for line in table.splitlines()
            if line.startswith("| `")
            for key in re.findall("`(.*?)`", line.split("|")[1])
        }
        for table in tables
    ]
    assert documented == [top, op, tensor]


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
def test_benchmark_names_every_op_and_draws_them(files, suffix):
    chart = f"layers.{suffix}"
    run = run_program(
        [*command("larq-clip benchmark"), "model.lcb", "--repeat", "3", "--threads", "2", "--json", "--chart", chart],
        cwd=files,
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    interpreter = larq_clip_interpreter(files / "model.lcb")
    assert [(op["name"], op["kernel"]) for op in report["ops"]] == [(op.name, op.kernel) for op in interpreter.ops()]
    assert sum(op["percent"] for op in report["ops"]) == pytest.approx(100)
    assert 0 < report["milliseconds_min"] <= report["milliseconds"] and report["threads"] == 2
    for op, executed in zip(report["ops"], interpreter.ops(), strict=True):
        macs = executed.binary_macs + executed.int8_macs + executed.float_macs
        assert (op["gmacs"] is None) == (macs == 0)
        assert macs == 0 or op["gmacs"] == pytest.approx(macs / op["milliseconds"] / 1e6)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!doctype html>"}[suffix]
    assert (files / chart).read_bytes().startswith(start)


def larq_clip_interpreter(path):
    from larq_clip.interpreter import Interpreter

    return Interpreter(path)


def test_benchmark_prints_a_table_and_refuses_other_charts(files):
    run = run_program([*command("larq-clip benchmark"), "model.lcb", "--repeat", "2"], cwd=files)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[1].split() == ["ms", "%", "GMAC/s", "kernel", "layers"]
    assert len(lines) == 2 + len(larq_clip_interpreter(files / "model.lcb").ops())
    refused = run_program([*command("larq-clip benchmark"), "model.lcb", "--chart", "layers.bmp"], cwd=files)
    assert refused.returncode == 2 and "--chart is layers.bmp; accepted are" in refused.stderr
