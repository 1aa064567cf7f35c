"""larq-clip-run and files: every kind of .npy, pipes, full disks, signals. The output is complete or not touched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy
from support import program, run_program, write_signs

SHAPE = (3, 5, 70)


@pytest.fixture
def folder(tmp_path):
    """A folder with model.lcb, the signs of its input as float32, and x.npy."""
    write_signs(tmp_path / "model.lcb", SHAPE)
    np.save(tmp_path / "x.npy", images())
    return tmp_path


def images() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((2, *SHAPE)).astype(np.float32)


def signs(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, np.float32(1), np.float32(-1))


def command(*more: str) -> list[str]:
    return [*program("larq-clip-run"), "model.lcb", *more]


def save(path, array: np.ndarray, version: tuple[int, int]) -> None:
    with path.open("wb") as file:
        npy.write_array(file, array, version=version, allow_pickle=True)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_npy(version, folder):
    save(folder / "v.npy", images(), version)
    run = run_program(command("--input", "v.npy", "--output", "y.npy"), cwd=folder)
    assert run.returncode == 0, run.stderr
    np.testing.assert_array_equal(np.load(folder / "y.npy"), signs(images()))


@pytest.mark.parametrize("batch", [0, 1, 2, None])
def test_any_number_of_images(batch, folder):
    x = images()[0] if batch is None else images()[:batch]
    np.save(folder / "x.npy", x)
    run = run_program(command("--input", "x.npy", "--output", "y.npy"), cwd=folder)
    assert run.returncode == 0, run.stderr
    np.testing.assert_array_equal(np.load(folder / "y.npy"), signs(x.reshape(-1, *SHAPE)))


REFUSED = {
    "Fortran order": (lambda: np.asfortranarray(images()), "ascontiguousarray"),
    "big endian": (lambda: images().astype(">f4"), "'>f4'"),
    "objects": (lambda: images().astype(object), "objects"),
    "structs": (lambda: np.zeros((2, *SHAPE), [("a", "<f4")]), "structs"),
    "float64": (lambda: images().astype(np.float64), "astype"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_arrays(case, folder):
    save(folder / "bad.npy", REFUSED[case][0](), (1, 0))
    run = run_program(command("--input", "bad.npy", "--output", "y.npy"), cwd=folder)
    assert run.returncode == 2 and REFUSED[case][1] in run.stderr, run.stderr
    assert not (folder / "y.npy").exists()


def test_a_header_that_promises_too_much(folder):
    """A million million images: the file's length decides, before memory for them is asked for."""
    with (folder / "bad.npy").open("wb") as file:
        npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**12, *SHAPE)})
        file.write(images().tobytes())
    run = run_program(command("--input", "bad.npy", "--output", "y.npy"), cwd=folder)
    assert run.returncode == 2 and "image 2 of 1000000000000" in run.stderr, run.stderr


def feed(path, content: bytes) -> threading.Thread:
    """Write to a pipe, from another thread, what another process will read."""

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            path.write_bytes(content)

    os.mkfifo(path)
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def test_images_from_a_pipe(folder):
    thread = feed(folder / "pipe", (folder / "x.npy").read_bytes())
    run = run_program(command("--input", "pipe", "--output", "y.npy"), cwd=folder)
    thread.join()
    assert run.returncode == 0, run.stderr
    np.testing.assert_array_equal(np.load(folder / "y.npy"), signs(images()))


def test_a_cut_off_pipe(folder):
    thread = feed(folder / "pipe", (folder / "x.npy").read_bytes()[:-1])
    run = run_program(command("--input", "pipe", "--output", "y.npy"), cwd=folder)
    thread.join()
    assert run.returncode == 2 and "image 1 of 2" in run.stderr, run.stderr
    assert not list(folder.glob("y.npy*"))


def test_output_over_the_input(folder):
    run = run_program(command("--input", "x.npy", "--output", "x.npy"), cwd=folder)
    assert run.returncode == 0, run.stderr
    np.testing.assert_array_equal(np.load(folder / "x.npy"), signs(images()))


def test_a_device_is_no_output(folder):
    run = run_program(command("--input", "x.npy", "--output", "/dev/full"), cwd=folder)
    assert run.returncode == 2 and "not a regular file" in run.stderr, run.stderr


def test_a_report_that_cannot_be_written_leaves_the_earlier_output(folder):
    (folder / "y.npy").write_bytes(b"precious")
    with Path("/dev/full").open("w") as full:
        arguments = command("--input", "x.npy", "--output", "y.npy")
        run = subprocess.run(arguments, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 2 and "report" in run.stderr, run.stderr
    assert [path.read_bytes() for path in folder.glob("y.npy*")] == [b"precious"]


def test_the_file_of_a_killed_process_with_the_same_number_is_no_obstacle(folder):
    def leave_file() -> None:  # runs in the child, whose number the program keeps
        for suffix in ("tmp", "0.tmp"):
            for separator in (".", "-"):
                (folder / f"y.npy.{os.getpid()}{separator}{suffix}").write_bytes(b"left")

    arguments = command("--input", "x.npy", "--output", "y.npy")
    run = subprocess.run(arguments, cwd=folder, preexec_fn=leave_file, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    np.testing.assert_array_equal(np.load(folder / "y.npy"), signs(images()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_ended_process_leaves_the_earlier_output(number, folder):
    (folder / "y.npy").write_bytes(b"precious")
    arguments = command("--input", "x.npy", "--output", "y.npy", "--repeat", "100000000")

    def heed() -> None:  # tests that run in the background of a shell are started with SIGINT ignored
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)

    process = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.DEVNULL, preexec_fn=heed)
    try:
        limit = time.monotonic() + 20
        while not list(folder.glob("y.npy.*")):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(20) == -number
    finally:
        process.kill()
        process.wait()
    assert (folder / "y.npy").read_bytes() == b"precious"
    if number != signal.SIGKILL:
        assert not list(folder.glob("y.npy.*"))
