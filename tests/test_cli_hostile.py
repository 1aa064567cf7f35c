"""Both command lines on damaged files and senseless arguments, by hypothesis: one line that says what is wrong and exit
code 2, or a whole result; never a traceback, never a part of an output."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import struct
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from converter_support import Sketch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy
from support import program, run_program

from larq_clip.cli import main
from larq_clip.converter import ir, pipeline, reader, writer

QUICK = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
FEW = settings(QUICK, max_examples=25)
SHAPE = (5, 4, 3)
OUTPUT = (5, 4, 6)


def small_model() -> bytes:
    """A float and a binary convolution, one input and one output."""
    sketch = Sketch(SHAPE).conv("c", 5, bias=True).norm("n", scale=1.0).sign("s").binary_conv("b", 6).norm("n2")
    return writer.write(pipeline.lower(sketch.add(ir.Affine, "y", activation=ir.Activation(-1, 6)).graph()))


def npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    npy.write_array(file, array)
    return file.getvalue()


MODEL = small_model()
IMAGES = npy_bytes(np.linspace(-1, 1, 2 * 60, dtype=np.float32).reshape(2, *SHAPE))


@st.composite
def damaged(draw, data: bytes, densest: int) -> bytes:
    """Cut off, bytes or words changed, a piece moved, taken out or put in; half of it in the first `densest` bytes."""
    place = st.one_of(st.integers(0, densest - 1), st.integers(0, len(data) - 1))
    changed = bytearray(data)
    for kind in draw(st.lists(st.sampled_from(["cut", "byte", "word", "move", "drop", "put"]), min_size=1, max_size=3)):
        at = min(draw(place), len(changed))
        if kind == "cut":
            del changed[at:]
        elif kind == "byte":
            changed[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "word":
            changed[at : at + 4] = struct.pack(
                "<I", draw(st.sampled_from([0, 1, 7, 2**16, 2**31 - 1, 2**31, 2**32 - 1]))
            )
        elif kind == "move":
            changed[at : at + 8] = data[(start := draw(place)) : start + 8]
        elif kind == "drop":
            del changed[at : at + draw(st.integers(1, 16))]
        else:
            changed[at:at] = draw(st.binary(max_size=16))
    return bytes(changed)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a good model, good images and an earlier output."""
    (tmp_path / "model.lcb").write_bytes(MODEL)
    (tmp_path / "x.npy").write_bytes(IMAGES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def attempt(*arguments: str) -> int:
    """`larq-clip` in this process; its exit code, after checking that an error is one line and changes no file."""
    Path("y.npy").write_bytes(b"precious")
    before = contents(Path())
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as stop:
        main(list(arguments))
    check(stop.value.code, errors.getvalue(), before)
    return stop.value.code


def attempt_program(*arguments: str) -> int:
    """The same for larq-clip-run."""
    Path("y.npy").write_bytes(b"precious")
    before = contents(Path())
    run = run_program([*program("larq-clip-run"), *arguments], errors="replace")
    check(run.returncode, run.stderr, before)
    return run.returncode


def has_controls(text: str) -> bool:
    return any(unicodedata.category(character) == "Cc" for character in text)


def check(code: int | None, errors: str, before: dict[str, bytes]) -> None:
    assert code in (0, 2, None), (code, errors)
    after = contents(Path())
    if code == 2:
        assert len(errors.splitlines()) == 1 and errors.startswith("larq-clip"), errors
        assert not has_controls(errors[:-1]), errors
        assert after == before
        return
    assert set(after) == set(before)
    if after["y.npy"] != b"precious":
        assert np.load("y.npy", allow_pickle=False).ndim == 4


def test_what_is_damaged_here_is_good(folder):
    for which in (attempt, attempt_program):
        words = () if which is attempt_program else ("run",)
        assert not which(*words, "model.lcb", "--input", "x.npy", "--output", "y.npy")
        assert np.load("y.npy").shape == (2, *OUTPUT)
    assert not attempt("inspect", "model.lcb")


@settings(QUICK, max_examples=100)
@given(damaged(MODEL, 64))
def test_damaged_models(folder, data):
    (folder / "bad.lcb").write_bytes(data)
    attempt("inspect", "bad.lcb")
    attempt("inspect", "bad.lcb", "--json")
    run = ("bad.lcb", "--input", "x.npy", "--output", "y.npy")
    attempt("run", *run)
    assert attempt("verify", "none.h5", "bad.lcb") == 2
    attempt_program(*run)


@settings(QUICK, max_examples=200)
@given(damaged(IMAGES, 128))
@example(IMAGES.replace(b"'descr'", b"'descr("))
@example(IMAGES.replace(b"(2, 5, 4, 3)", b"(2, 5, 4, 3 "))
@example(IMAGES.replace(b"(2, 5, 4, 3)", b"(2, 5, 4L,3)"))
@example(IMAGES.replace(b"(2, 5, 4, 3)", b"(-2,5,4, 3)"))
@example(IMAGES.replace(b"(2, 5, 4, 3)", b"(2.,5, 4,3)"))
@example(IMAGES.replace(b"{'descr", b"((((((("))
@example(IMAGES.replace(b"'<f4'", b"'<f '"))
def test_damaged_images(folder, data):
    (folder / "bad.npy").write_bytes(data)
    attempt("run", "model.lcb", "--input", "bad.npy", "--output", "y.npy")
    assert attempt("verify", "none.h5", "model.lcb", "--input", "bad.npy") == 2
    if len(data) % 4 == 0:
        attempt_program("model.lcb", "--input", "bad.npy", "--output", "y.npy")


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "descr": st.one_of(st.sampled_from(["<f4", "|O", ">f4", "<f8", "|V3", "<U7", "<M8[ns]", "f4,f4"]), st.text()),
        "fortran_order": st.one_of(st.booleans(), st.integers(), st.text(max_size=3)),
        "shape": st.one_of(
            st.lists(st.integers(-1, 6), max_size=5).map(tuple),
            st.lists(st.integers(-(2**70), 2**70), max_size=34).map(tuple),
            st.integers(),
        ),
        "more": st.integers(),
    },
)


def test_a_small_file_that_asks_for_all_memory(folder):
    """A tensor of 2^60 bytes, in place of 240."""
    sketch = Sketch(SHAPE).add(ir.Function, "y", kind=ir.FunctionKind.TANH)
    data = writer.write(pipeline.lower(sketch.graph()))
    shape, arena = struct.pack("<III", *SHAPE), struct.pack("<Q", 240)
    assert data.count(shape) == data.count(arena) == 1
    huge = struct.pack("<III", 2**24, 2**24, 2**10)
    (folder / "bad.lcb").write_bytes(data.replace(shape, huge).replace(arena, struct.pack("<Q", 2**60)))
    run = ("bad.lcb", "--input", "x.npy", "--output", "y.npy")
    for which in (("larq-clip", "run"), ("larq-clip-run",)):
        done = run_program([*program(which[0]), *which[1:], *run])
        assert done.returncode == 2 and "bytes of" in done.stderr and "memory" in done.stderr, done.stderr
        limited = run_program([*program(which[0]), *which[1:], *run, "--memory-limit", "1000000"])
        assert limited.returncode == 2 and "limit is 1" in limited.stderr, limited.stderr


NAMES = (b"\x1b[31mred", b"[/red]\\[b]", b'"\x07\x7f\n\r', b"\xc2\x9b31m\xe2\x82\xac", b"\xff\xed\xa0\x80\xc0\xaf\xf4")


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_do_not_steer_the_terminal(folder, name):
    """Control characters, markup and bytes that are no UTF-8 in the names of a model file."""
    graph = reader.read(MODEL)
    names = {op.name: f"{i}AAAAAAAAAAAAAAAA"[:12] for i, op in enumerate(graph.ops)}
    renamed = dataclasses.replace(graph, ops=tuple(dataclasses.replace(op, name=names[op.name]) for op in graph.ops))
    data = writer.write(renamed)
    assert data.count(b"AAAAAAAAAAA") == len(graph.ops)
    (folder / "bad.lcb").write_bytes(data.replace(b"AAAAAAAAAAA", name.ljust(11, b"A")))
    run = ("bad.lcb", "--input", "x.npy", "--profile")
    for command in (("larq-clip", "inspect", "bad.lcb"), ("larq-clip", "run", *run), ("larq-clip-run", *run)):
        done = run_program([*program(command[0]), *command[1:]], errors="strict", encoding="utf-8")
        for line in (done.stdout + done.stderr).splitlines():
            assert not has_controls(line), line
    done = run_program([*program("larq-clip-run"), *run, "--json"], errors="strict", encoding="utf-8")
    assert [op["kernel"] for op in json.loads(done.stdout)["ops"]] and not has_controls(done.stdout.replace("\n", ""))


@QUICK
@given(HEADERS, st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)]), st.binary(max_size=64))
@example({"descr": "<f4", "fortran_order": False, "shape": (10**12, *SHAPE)}, (1, 0), b"")
@example({"descr": "<f4", "fortran_order": False, "shape": (2**62, 2**62)}, (1, 0), b"")
@example({"descr": "|O", "fortran_order": False, "shape": (1,)}, (1, 0), b"cos\nsystem\n(S'touch sprung'\ntR.")
def test_any_header(folder, header, version, data):
    text = repr(header).encode("utf-8", "surrogatepass") + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    (folder / "bad.npy").write_bytes(b"\x93NUMPY" + bytes(version) + length + text + data)
    attempt("run", "model.lcb", "--input", "bad.npy", "--output", "y.npy")
    attempt_program("model.lcb", "--input", "bad.npy", "--output", "y.npy")
    assert not (folder / "sprung").exists()


OPTIONS = """--input --output --samples --threads --isa --profile --json --weights --input-shape --trust -o --report
--no-verify --verify --help --debug"""
VALUES = "model.lcb x.npy none.h5 y.npy . .. - -- 0 -1 2 3.5 scalar 1e9 18446744073709551616"
WORDS = st.one_of(
    st.sampled_from(OPTIONS.split()),
    st.sampled_from(VALUES.split()),
    st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=8),
)


@QUICK
@given(st.sampled_from(["inspect", "run", "verify", "convert", "nothing"]), st.lists(WORDS, max_size=7))
@example("run", ["model.lcb", "--input", "a\nb"])
@example("inspect", ["\x00"])
@example("inspect", ["x" * 5000])
@example("verify", ["none.h5", "model.lcb", "--samples", "0"])
@example("convert", ["none.h5", "-o", "none.h5"])
def test_any_arguments(folder, command, words):
    attempt(command, *words)


@QUICK
@given(st.lists(WORDS.filter(lambda word: "\0" not in word), max_size=7))
@example(["model.lcb", "--input=x.npy", "--output=y.npy", "--threads=1", "--json"])
@example(["model.lcb", "--input", "\x1b[31mred\n"])
def test_any_arguments_of_larq_clip_run(folder, words):
    attempt_program(*words)


def archive(config: bytes, name: str = "config.json") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("metadata.json", '{"keras_version": "2.15.0"}')
        made.writestr(name, config)
    return file.getvalue()


KERAS = archive(json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": []}}).encode())
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.sampled_from(["Sequential", "Dense"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["class_name", "config", "module", "layers", "name"]), inner, max_size=4),
    ),
    max_leaves=8,
)
GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda data: b"\x89HDF\r\n\x1a\n" + data),
    damaged(KERAS, 64),
    JSON.map(lambda config: archive(json.dumps(config).encode())),
    st.binary(max_size=64).map(archive),
)


@FEW
@given(GARBAGE, st.sampled_from([".keras", ".h5", ".hdf5"]))
@example(archive(b"[" * 100_000), ".keras")
@example(archive(b"\xff\xfe"), ".keras")
@example(KERAS.replace(b"config.json", b"config.jsom", 1), ".keras")
def test_convert_and_verify_garbage(folder, data, suffix):
    name = "bad" + suffix
    (folder / name).write_bytes(data)
    assert attempt("convert", name, "-o", "y.npy") == 2
    assert attempt("verify", name, "model.lcb") == 2
    Path(name).unlink()


@FEW
@given(
    st.dictionaries(st.sampled_from(["saved_model.pb", "keras_metadata.pb", "fingerprint.pb"]), st.binary(max_size=99))
)
@example({"saved_model.pb": b""})
def test_convert_a_folder_of_garbage(folder, files):
    (folder / "saved").mkdir(exist_ok=True)
    for path in (folder / "saved").iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / "saved" / name).write_bytes(data)
    assert attempt("convert", "saved", "-o", "y.npy") == 2
