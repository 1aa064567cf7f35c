"""Outputs when the process ends or the disk is full: the earlier file or the whole new one, and no file left behind."""

from __future__ import annotations

import importlib.util
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy
from support import ROOT, program, run_program, write_signs

SHAPE = (3, 5, 70)
IMAGES = 40
PROGRAMS = ["larq-clip run", "larq-clip-run"]


@pytest.fixture
def folder(tmp_path):
    """A folder with model.lcb, a sign of every element, x.npy and an earlier output."""
    write_signs(tmp_path / "model.lcb", SHAPE)
    np.save(tmp_path / "x.npy", np.ones((IMAGES, *SHAPE), np.float32))
    (tmp_path / "y.npy").write_bytes(b"precious")
    return tmp_path


def command(which: str, *more: str) -> list[str]:
    name, *rest = which.split()
    return [*program(name), *rest, "model.lcb", "--input", "x.npy", "--output", "y.npy", *more]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def small_disk(handled: bool):
    """Run in the child: files of at most 4096 bytes, and the signal that says so handled as by default or ignored."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN if handled else signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    return limit


@pytest.mark.parametrize("which", PROGRAMS)
def test_a_disk_that_becomes_full(which, folder):
    """A write fails in the middle of the output, as on a full disk."""
    before = names(folder)
    run = run_program(command(which), cwd=folder, preexec_fn=small_disk(handled=True))
    assert run.returncode == 2, (run.stdout, run.stderr)
    assert len(run.stderr.strip().splitlines()) == 1 and "File too large" in run.stderr, run.stderr
    assert names(folder) == before and (folder / "y.npy").read_bytes() == b"precious"


def test_the_signal_of_a_file_too_large_leaves_no_file(folder):
    before = names(folder)
    run = run_program(command("larq-clip-run"), cwd=folder, preexec_fn=small_disk(handled=False))
    assert run.returncode == -signal.SIGXFSZ, (run.returncode, run.stderr)
    assert names(folder) == before and (folder / "y.npy").read_bytes() == b"precious"


def test_an_interrupt_of_larq_clip_run_in_python(folder):
    before = names(folder)
    process = subprocess.Popen(
        command("larq-clip run", "--repeat", "100000000"),
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background of a shell are started with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        limit = time.monotonic() + 60
        while "liblarq_clip" not in Path(f"/proc/{process.pid}/maps").read_text():
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130 and error.strip() == "larq-clip: error: interrupted", (process.returncode, error)
    assert names(folder) == before and (folder / "y.npy").read_bytes() == b"precious"


WRITER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
contents = [letter * 200_000 for letter in (b"a", b"b")]
files.atomic_write(sys.argv[2], contents[0])
print("ready", flush=True)
while True:
    for content in contents:
        files.atomic_write(sys.argv[2], content)
"""


def test_a_killed_writer_leaves_one_whole_file(tmp_path):
    """What `larq-clip convert` and `run` write with, killed at moments that fall anywhere in a write."""
    target, source = tmp_path / "out.lcb", ROOT / "larq_clip" / "files.py"
    for attempt in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(source), str(target)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.0037 * attempt)
        process.kill()
        process.communicate()
        content = target.read_bytes()
        assert len(content) == 200_000 and content in (b"a" * 200_000, b"b" * 200_000)


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path):
    spec = importlib.util.spec_from_file_location("files", ROOT / "larq_clip" / "files.py")
    files = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(files)
    target = tmp_path / "out.lcb"
    target.write_bytes(b"precious")
    before, soft = signal.getsignal(signal.SIGXFSZ), resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, soft[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.atomic_write(target, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        signal.signal(signal.SIGXFSZ, before)
    assert names(tmp_path) == {"out.lcb"} and target.read_bytes() == b"precious"


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("which", PROGRAMS)
def test_objects_are_not_unpickled(which, folder):
    sprung = folder / "sprung"
    with (folder / "x.npy").open("wb") as file:
        npy.write_array(file, np.array([Trap(sprung)], dtype=object), allow_pickle=True)
    before = names(folder)
    run = run_program(command(which), cwd=folder)
    assert run.returncode == 2 and len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert names(folder) == before and (folder / "y.npy").read_bytes() == b"precious"
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()  # the trap works


@pytest.mark.parametrize("order", ["Fortran", "big-endian"])
def test_other_orders_are_refused_or_read_as_what_they_are(order, folder):
    x = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    np.save(folder / "x.npy", np.asfortranarray(x) if order == "Fortran" else x.astype(">f4"))
    run = run_program(command("larq-clip run"), cwd=folder)
    assert run.returncode == 0, run.stderr
    np.testing.assert_array_equal(np.load(folder / "y.npy"), np.where(x >= 0, np.float32(1), np.float32(-1)))
    run = run_program(command("larq-clip-run"), cwd=folder)
    assert run.returncode == 2 and ("ascontiguousarray" in run.stderr or "'>f4'" in run.stderr), run.stderr


@pytest.mark.parametrize("argument", ["model.lcb", "x.npy"])
@pytest.mark.parametrize("which", PROGRAMS)
def test_an_input_that_cannot_be_read(which, argument, folder):
    """A folder in its place: what a user other than root gets for a file without permission, every user gets for it."""
    (folder / argument).unlink()
    (folder / argument).mkdir()
    before = names(folder)
    run = run_program(command(which), cwd=folder)
    assert run.returncode == 2 and len(run.stderr.strip().splitlines()) == 1 and argument in run.stderr, run.stderr
    assert names(folder) == before and (folder / "y.npy").read_bytes() == b"precious"
