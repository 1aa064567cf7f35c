"""The Python interface to the C runtime: shapes, dtypes, errors, memory, threads."""

from __future__ import annotations

import ctypes
import os
import threading
from ctypes import byref, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import pytest
from support import IMAGE, dyadic_images, small_vgg

import larq_clip
from larq_clip import Interpreter, ModelFileError, RuntimeLibraryError, _native


@pytest.fixture(scope="module")
def data():
    return larq_clip.convert_keras_model(small_vgg())


def test_path_and_bytes_are_the_same(data, tmp_path):
    (tmp_path / "m.lcb").write_bytes(data)
    images = dyadic_images(3)
    for path in (tmp_path / "m.lcb", str(tmp_path / "m.lcb")):
        np.testing.assert_array_equal(Interpreter(path).predict(images), Interpreter(data).predict(images))


def test_a_model_from_a_pipe(data, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    interpreter = Interpreter(tmp_path / "pipe")
    writer.join()
    images = dyadic_images(1)
    np.testing.assert_array_equal(interpreter.predict(images), Interpreter(data).predict(images))


def test_casts_numbers_as_keras_does(data):
    images = np.round(dyadic_images(2))
    interpreter = Interpreter(data)
    for dtype in (np.float64, np.int8, np.int64, np.float16):
        np.testing.assert_array_equal(interpreter.predict(images.astype(dtype)), interpreter.predict(images))


def test_memory_limit(data, monkeypatch):
    needed = Interpreter(data).session_bytes
    assert Interpreter(data, memory_limit=np.int64(needed)).session_bytes == needed
    for limit in (0, -1, True, 2.5, "1"):
        with pytest.raises(RuntimeLibraryError, match="memory_limit is"):
            Interpreter(data, memory_limit=limit)
    taken, buffer = [], _native.aligned_buffer
    monkeypatch.setattr(
        _native, "aligned_buffer", lambda size, alignment: taken.append(size) or buffer(size, alignment)
    )
    with pytest.raises(RuntimeLibraryError, match=f"needs {needed:,} bytes.*limit is {needed - 1:,}"):
        Interpreter(data, memory_limit=needed - 1)
    assert taken == [len(data)]  # the file's bytes, nothing of the session's


def test_empty_batch(data):
    assert Interpreter(data).predict(np.zeros((0, *IMAGE))).shape == (0, 10)


def test_wrong_inputs_say_what_is_accepted(data):
    interpreter = Interpreter(data)
    with pytest.raises(ValueError, match=r"\(12, 12, 3\).*accepted is \(batch, 12, 12, 3\)"):
        interpreter.predict(np.zeros(IMAGE))
    with pytest.raises(ValueError, match="has shape"):
        interpreter.predict(np.zeros((1, 12, 3, 12)))
    with pytest.raises(ValueError, match="complex128"):
        interpreter.predict(np.zeros((1, *IMAGE), complex))
    with pytest.raises(ValueError, match="has dtype"):
        interpreter.predict(np.full((1, *IMAGE), "a"))
    with pytest.raises(ValueError, match="dtype bool"):
        interpreter.predict(np.zeros((1, *IMAGE), bool))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_input_that_is_not_finite(data, bad):
    images = dyadic_images(3)
    interpreter = Interpreter(data)
    expected = interpreter.predict(images)
    spoilt = images.copy()
    spoilt[1, 0, 0, 0] = bad
    with pytest.raises(RuntimeLibraryError, match=r"(NaN|infinity).*image 1"):
        interpreter.predict(spoilt)
    np.testing.assert_array_equal(interpreter.predict(images), expected)


def test_options_that_are_not_accepted(data):
    with pytest.raises(RuntimeLibraryError, match="isa is 'sse9'; accepted are 'auto'"):
        Interpreter(data, isa="sse9")
    foreign = "neon" if "avx2" in larq_clip.interpreter.available_isas() else "avx2"
    if foreign not in larq_clip.interpreter.available_isas():
        with pytest.raises(RuntimeLibraryError, match=foreign):
            Interpreter(data, isa=foreign)
    for threads in (0, -1, 1.5, True):
        with pytest.raises(RuntimeLibraryError, match="num_threads"):
            Interpreter(data, num_threads=threads)
    with pytest.raises(RuntimeLibraryError, match="1000"):
        Interpreter(data, num_threads=1000)


def test_numpy_integers_are_numbers_of_threads(data):
    images = dyadic_images(2)
    expected = Interpreter(data).predict(images)
    np.testing.assert_array_equal(Interpreter(data, num_threads=np.int64(2)).predict(images), expected)


def test_a_batch_of_no_images(data):
    none = dyadic_images(1)[:0]
    one = Interpreter(data, keep_tensors=True).tensors(dyadic_images(1))
    found = Interpreter(data, keep_tensors=True).tensors(none)
    assert {k: (v.dtype, *v.shape) for k, v in found.items()} == {k: (v.dtype, 0, *v.shape[1:]) for k, v in one.items()}
    assert Interpreter(data).predict(none).shape == (0, 10)


def test_bad_files():
    for content in (b"", b"LCB1", b"x" * 1000):
        with pytest.raises(ModelFileError):
            Interpreter(content)
    with pytest.raises(FileNotFoundError):
        Interpreter("no-such-file.lcb")


def test_tensors_need_to_be_kept(data):
    with pytest.raises(RuntimeLibraryError, match="keep_tensors=True"):
        Interpreter(data).tensors(dyadic_images(1))


def test_ops_and_profile(data):
    interpreter = Interpreter(data, profile=True)
    interpreter.predict(dyadic_images(1))
    ops = interpreter.ops()
    assert sum(op.type == "BinaryConv2D" for op in ops) == 3
    assert all(op.nanoseconds > 0 for op in ops if op.binary_macs)
    assert all(op.nanoseconds == 0 for op in Interpreter(data).ops())


def test_memory_that_is_too_small_or_not_aligned(data):
    library = _native.library()
    file, address = _native.aligned_buffer(len(data), _native.FILE_ALIGNMENT)
    ctypes.memmove(address, data, len(data))
    model, error, size, session = _native.Model(), _native.Error(), c_size_t(), c_void_p()
    assert library.lqc_model_load(byref(model), address, len(data), byref(error)) == _native.OK
    assert library.lqc_session_size(byref(model), None, byref(size), byref(error)) == _native.OK
    memory, place = _native.aligned_buffer(size.value + 64, _native.SESSION_ALIGNMENT)

    def init(at: int, bytes_: int) -> str:
        status = library.lqc_session_init(byref(session), byref(model), None, at, bytes_, byref(error))
        assert status != _native.OK and not session
        return error.message.decode()

    assert str(size.value) in init(place, size.value - 1)
    assert "64" in init(place + 8, size.value)
    assert library.lqc_session_init(byref(session), byref(model), None, place, size.value, byref(error)) == _native.OK
    library.lqc_session_destroy(session)


def test_interpreters_in_many_threads_agree(data):
    images = dyadic_images(20)
    expected = Interpreter(data).predict(images)
    shared, failures = Interpreter(data, num_threads=2), []

    def work():
        for interpreter in (shared, Interpreter(data)):
            if not np.array_equal(interpreter.predict(images), expected):
                failures.append(interpreter)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_library_that_is_missing_or_another_one(monkeypatch, tmp_path):
    other = tmp_path / "other.so"
    _native.library.cache_clear()
    try:
        monkeypatch.setenv(_native.LIBRARY_VARIABLE, str(other))
        with pytest.raises(RuntimeLibraryError, match="cannot be loaded"):
            _native.library()
        other.symlink_to(find_library_file("m"))
        with pytest.raises(RuntimeLibraryError, match="is not the C runtime of larq-clip .*; reinstall"):
            _native.library()
    finally:
        _native.library.cache_clear()


def find_library_file(name: str) -> str:
    """Path of a system library that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(path for line in lines if f"/lib{name}." in (path := line.split()[-1]))
