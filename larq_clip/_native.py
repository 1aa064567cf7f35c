"""The C runtime as ctypes sees it: the declarations of runtime/include/larq_clip.h and where its library is."""

from __future__ import annotations

import ctypes
import mmap
import os
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import larq_clip
from larq_clip.errors import ModelFileError, RuntimeLibraryError

SESSION_ALIGNMENT = 64
FILE_ALIGNMENT = 16
POPULATED_BYTES = 1 << 16
MAX_RANK = 3
LIBRARY_VARIABLE = "LARQ_CLIP_LIBRARY"

OK = 0
# Statuses that say "this is not a file I can run" (larq_clip.h, LQC_STATUS_LIST).
FILE_STATUSES = range(2, 7)
DTYPES = ("bit", "int8", "int16", "int32", "float32")
ISAS = ("auto", "scalar", "neon", "avx2", "avx512", "neon_in_order")


class Error(Structure):
    _fields_ = [("status", c_int), ("message", ctypes.c_char * 244)]


class Model(Structure):
    _fields_ = [("opaque", c_uint64 * 16)]


class Options(Structure):
    _fields_ = [("threads", c_uint32), ("isa", c_int), ("keep_tensors", c_int), ("profile", c_int)]


class TensorInfo(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("dtype", c_int),
        ("rank", c_uint32),
        ("shape", c_uint32 * MAX_RANK),
        ("bytes", c_size_t),
    ]


class OpInfo(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("type", c_char_p),
        ("kernel", c_char_p),
        ("binary_macs", c_uint64),
        ("int8_macs", c_uint64),
        ("float_macs", c_uint64),
        ("nanoseconds", c_uint64),
    ]


_FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "lqc_version": (c_char_p, []),
    "lqc_isa_available": (c_int, [c_int]),
    "lqc_model_load": (c_int, [POINTER(Model), c_void_p, c_size_t, POINTER(Error)]),
    "lqc_model_input_count": (c_size_t, [POINTER(Model)]),
    "lqc_model_output_count": (c_size_t, [POINTER(Model)]),
    "lqc_model_tensor_count": (c_size_t, [POINTER(Model)]),
    "lqc_model_op_count": (c_size_t, [POINTER(Model)]),
    "lqc_model_input_tensor": (c_size_t, [POINTER(Model), c_size_t]),
    "lqc_model_output_tensor": (c_size_t, [POINTER(Model), c_size_t]),
    "lqc_model_tensor_info": (c_int, [POINTER(Model), c_size_t, POINTER(TensorInfo)]),
    "lqc_session_size": (c_int, [POINTER(Model), POINTER(Options), POINTER(c_size_t), POINTER(Error)]),
    "lqc_session_init": (
        c_int,
        [POINTER(c_void_p), POINTER(Model), POINTER(Options), c_void_p, c_size_t, POINTER(Error)],
    ),
    "lqc_session_input": (c_void_p, [c_void_p, c_size_t]),
    "lqc_session_output": (c_void_p, [c_void_p, c_size_t]),
    "lqc_session_run": (c_int, [c_void_p, POINTER(Error)]),
    "lqc_session_tensor": (c_void_p, [c_void_p, c_size_t]),
    "lqc_session_op_info": (c_int, [c_void_p, c_size_t, POINTER(OpInfo)]),
    "lqc_session_isa": (c_int, [c_void_p]),
    "lqc_session_destroy": (None, [c_void_p]),
}


def library_path() -> Path:
    """Where the shared library is: $LARQ_CLIP_LIBRARY, or beside this package (an editable install has two places).

    Raises:
        RuntimeLibraryError: where there is none.
    """
    override = os.environ.get(LIBRARY_VARIABLE)
    if override:
        return Path(override)
    places = [Path(folder) / "_native" / "liblarq_clip.so" for folder in larq_clip.__path__]
    for place in places:
        if place.exists():
            return place
    searched = ", ".join(str(place) for place in places)
    raise RuntimeLibraryError(
        f"the C runtime is not installed: no library at {searched}; install larq-clip with pip, "
        f"or set {LIBRARY_VARIABLE} to the path of liblarq_clip.so"
    )


@cache
def library() -> ctypes.CDLL:
    """The loaded library, its functions declared.

    Raises:
        RuntimeLibraryError: where it is missing, cannot be loaded, or is of another version.
    """
    path = library_path()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise RuntimeLibraryError(f"the C runtime {path} cannot be loaded: {error}") from error
    for name, (result, arguments) in _FUNCTIONS.items():
        try:
            function = getattr(loaded, name)
        except AttributeError:
            raise RuntimeLibraryError(
                f"{path} is not the C runtime of larq-clip {larq_clip.__version__}: it has no function {name}; "
                f"reinstall larq-clip, or correct {LIBRARY_VARIABLE}"
            ) from None
        function.restype, function.argtypes = result, arguments
    version = loaded.lqc_version().decode()
    if version != larq_clip.__version__:
        raise RuntimeLibraryError(
            f"the C runtime {path} has version {version}, the Python package {larq_clip.__version__}; "
            "reinstall larq-clip"
        )
    return loaded


def check(status: int, error: Error, where: str = "") -> None:
    """Turn a status into an exception: ModelFileError for a bad file, RuntimeLibraryError for anything else.

    `where` comes before the message.
    """
    if status != OK:
        message = where + error.message.decode(errors="replace")
        raise (ModelFileError if status in FILE_STATUSES else RuntimeLibraryError)(message)


def _memory(size: int) -> NDArray[np.uint8]:
    """Bytes, not initialized. Linux brings in all pages of a large piece at once, which takes less time than one by one
    when they are first touched: a part of what a first result waits for."""
    if size < POPULATED_BYTES or not hasattr(mmap, "MAP_POPULATE"):
        return np.empty(size, np.uint8)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"{size:,} bytes are not available") from error
    return np.frombuffer(pages, np.uint8)


def aligned_buffer(size: int, alignment: int) -> tuple[NDArray[np.uint8], int]:
    """`size` bytes at an address that is a multiple of `alignment`, not initialized: the array that owns them, and the
    address.

    Raises:
        MemoryError: where there is not as much.
    """
    owner = _memory(size + alignment)
    skipped = -owner.ctypes.data % alignment
    return owner[skipped : skipped + size], owner.ctypes.data + skipped


def aligned_file(path: Path, alignment: int) -> tuple[NDArray[np.uint8], int]:
    """The bytes of a file, read once and to where they stay: as `aligned_buffer`.

    Raises:
        OSError: where it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        content, address = aligned_buffer(os.fstat(file.fileno()).st_size, alignment)
        size = 0
        while count := file.readinto(content.data[size:]):
            size += count
        rest = file.read()
    if rest:  # a pipe, whose size is not known before
        content, address = aligned_bytes(content[:size].tobytes() + rest, alignment)
        size = len(content)
    return content[:size], address


def aligned_bytes(data: bytes, alignment: int) -> tuple[NDArray[np.uint8], int]:
    """A copy of the bytes: as `aligned_buffer`."""
    content, address = aligned_buffer(len(data), alignment)
    content[:] = np.frombuffer(data, np.uint8)
    return content, address


__all__ = [
    "Error",
    "Model",
    "OpInfo",
    "Options",
    "TensorInfo",
    "aligned_buffer",
    "aligned_bytes",
    "aligned_file",
    "byref",
    "check",
    "library",
]
