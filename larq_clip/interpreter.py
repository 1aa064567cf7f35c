"""Run a converted model (.lcb) on the C runtime from Python, without TensorFlow."""

from __future__ import annotations

import ctypes
import os
import threading
from ctypes import byref, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larq_clip import _native, arithmetic
from larq_clip.errors import RuntimeLibraryError


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the model: name, dtype ("bit", "int8", "int16", "int32", "float32") and shape without the batch."""

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class OpInfo:
    """An op of the model, the kernel that executes it and, with ``profile=True``, the time of its last run in ns."""

    name: str
    type: str
    kernel: str
    binary_macs: int
    int8_macs: int
    float_macs: int
    nanoseconds: int


def available_isas() -> list[str]:
    """The instruction sets that this processor and this build of the runtime have, "scalar" first."""
    library = _native.library()
    return [name for i, name in enumerate(_native.ISAS) if name != "auto" and library.lqc_isa_available(i)]


def _is_positive(number: Any) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and bool(number >= 1)


class Interpreter:
    """Executes a model file on this machine.

    Args:
        model: path of a .lcb file, or its bytes.
        num_threads: threads that share the work; the result does not depend on it.
        isa: instruction set: "auto" (the best here), "scalar", "neon", "neon_in_order",
            "avx2" or "avx512".
        keep_tensors: keep every intermediate tensor of the last image, for `tensors`; takes more memory.
        profile: measure every op, for `ops`.
        memory_limit: most bytes that the session may take, `session_bytes`; a model that needs more is refused before
            they are taken. A small file can ask for much.

    Raises:
        ModelFileError: where `model` is not a model file this version runs.
        RuntimeLibraryError: where the C runtime is missing, an option is not accepted, or `memory_limit` is too low.
        MemoryError: where the model needs more memory than there is.
        OSError: where the file cannot be read.

    Example:
        >>> Interpreter("model.lcb", num_threads=2).predict(images)
    """

    def __init__(
        self,
        model: str | os.PathLike | bytes,
        num_threads: int = 1,
        isa: str = "auto",
        keep_tensors: bool = False,
        profile: bool = False,
        memory_limit: int | None = None,
    ):
        if isa not in _native.ISAS:
            raise RuntimeLibraryError(f"isa is {isa!r}; accepted are {', '.join(map(repr, _native.ISAS))}")
        if not _is_positive(num_threads):
            raise RuntimeLibraryError(f"num_threads is {num_threads!r}; accepted are whole numbers from 1")
        if memory_limit is not None and not _is_positive(memory_limit):
            raise RuntimeLibraryError(f"memory_limit is {memory_limit!r}; accepted are None and whole numbers from 1")
        self._session = c_void_p()
        self._lock = threading.Lock()
        self._lib = _native.library()
        if isinstance(model, bytes):
            where = ""
            self._file, address = _native.aligned_bytes(model, _native.FILE_ALIGNMENT)
        else:
            where = f"{Path(model)}: "
            self._file, address = _native.aligned_file(Path(model), _native.FILE_ALIGNMENT)

        error = _native.Error()
        self._model = _native.Model()
        _native.check(
            self._lib.lqc_model_load(byref(self._model), address, len(self._file), byref(error)), error, where
        )
        options = _native.Options(min(int(num_threads), 2**32 - 1), _native.ISAS.index(isa), keep_tensors, profile)
        size = c_size_t()
        _native.check(
            self._lib.lqc_session_size(byref(self._model), byref(options), byref(size), byref(error)), error, where
        )
        self.session_bytes = size.value
        if memory_limit is not None and size.value > memory_limit:
            raise RuntimeLibraryError(
                f"{where}the model needs {size.value:,} bytes of session memory; the memory limit is {memory_limit:,}"
            )
        try:
            self._memory, memory = _native.aligned_buffer(size.value, _native.SESSION_ALIGNMENT)
        except MemoryError:
            raise MemoryError(f"{where}{size.value:,} bytes of session memory are not available") from None
        status = self._lib.lqc_session_init(
            byref(self._session), byref(self._model), byref(options), memory, size.value, byref(error)
        )
        _native.check(status, error, where)
        self.inputs = [
            self._tensor_info(self._lib.lqc_model_input_tensor(byref(self._model), i))
            for i in range(self._lib.lqc_model_input_count(byref(self._model)))
        ]
        self.outputs = [
            self._tensor_info(self._lib.lqc_model_output_tensor(byref(self._model), i))
            for i in range(self._lib.lqc_model_output_count(byref(self._model)))
        ]

    def __del__(self) -> None:
        if getattr(self, "_session", None):
            self._lib.lqc_session_destroy(self._session)

    @property
    def isa(self) -> str:
        """Instruction set in use."""
        return _native.ISAS[self._lib.lqc_session_isa(self._session)]

    def predict(self, x: Any) -> Any:
        """Run a batch.

        Args:
            x: array ``(batch, *input shape)`` of real numbers, cast to float32 as Keras does; a list of arrays for a
                model with several inputs.

        Returns:
            The model's output ``(batch, *output shape)``, float32; a list for several outputs.

        Raises:
            ValueError: for a wrong number of inputs, shape or dtype.
            RuntimeLibraryError: for an input that is not finite.
        """
        arrays = self._checked_inputs(x)
        batch = len(arrays[0])
        outputs = [np.empty((batch, *info.shape), self._numpy_dtype(info)) for info in self.outputs]
        with self._lock:
            for image in range(batch):
                self._run([array[image] for array in arrays], f" (image {image})")
                for i, info in enumerate(self.outputs):
                    outputs[i][image] = self._read(info, self._lib.lqc_session_output(self._session, i))
        return outputs[0] if len(outputs) == 1 else outputs

    def tensors(self, x: Any) -> dict[str, NDArray]:
        """Every tensor of the model after running a batch: name to ``(batch, *shape)``.

        Bit tensors come as +1 and -1, int8. Needs ``keep_tensors=True``.
        """
        arrays = self._checked_inputs(x)
        batch = len(arrays[0])
        infos = [self._tensor_info(index) for index in range(self._lib.lqc_model_tensor_count(byref(self._model)))]
        collected = {info.name: np.empty((batch, *info.shape), self._numpy_dtype(info)) for info in infos}
        with self._lock:
            for image in range(batch):
                self._run([array[image] for array in arrays], f" (image {image})")
                for info in infos:
                    address = self._lib.lqc_session_tensor(self._session, info.index)
                    if not address:
                        raise RuntimeLibraryError("tensors() needs an Interpreter made with keep_tensors=True")
                    collected[info.name][image] = self._read(info, address)
        return collected

    def ops(self) -> list[OpInfo]:
        """The model's ops in execution order."""
        found = []
        for index in range(self._lib.lqc_model_op_count(byref(self._model))):
            raw = _native.OpInfo()
            self._lib.lqc_session_op_info(self._session, index, byref(raw))
            found.append(
                OpInfo(
                    raw.name.decode(errors="replace"),
                    raw.type.decode(),
                    raw.kernel.decode(),
                    raw.binary_macs,
                    raw.int8_macs,
                    raw.float_macs,
                    raw.nanoseconds,
                )
            )
        return found

    def _tensor_info(self, index: int) -> TensorInfo:
        raw = _native.TensorInfo()
        self._lib.lqc_model_tensor_info(byref(self._model), index, byref(raw))
        return TensorInfo(
            index, raw.name.decode(errors="replace"), _native.DTYPES[raw.dtype], tuple(raw.shape[: raw.rank]), raw.bytes
        )

    def _checked_inputs(self, x: Any) -> list[NDArray[np.float32]]:
        values = list(x) if isinstance(x, list | tuple) and len(self.inputs) > 1 else [x]
        if len(values) != len(self.inputs):
            raise ValueError(f"the model has {len(self.inputs)} inputs, {len(values)} were given")
        arrays = []
        for info, value in zip(self.inputs, values, strict=True):
            array = np.asarray(value)
            if array.dtype.kind not in "fiu":
                raise ValueError(f"input {info.name!r} has dtype {array.dtype}; accepted are real numbers (float32)")
            if array.ndim != len(info.shape) + 1 or array.shape[1:] != info.shape:
                expected = ", ".join(map(str, info.shape))
                raise ValueError(f"input {info.name!r} has shape {array.shape}; accepted is (batch, {expected})")
            arrays.append(np.ascontiguousarray(array, np.float32))
        if len({len(array) for array in arrays}) > 1:
            raise ValueError(f"the inputs have different batch sizes: {[len(array) for array in arrays]}")
        return arrays

    def _run(self, images: list[NDArray[np.float32]], where: str) -> None:
        error = _native.Error()
        for i, image in enumerate(images):
            ctypes.memmove(self._lib.lqc_session_input(self._session, i), image.ctypes.data, image.nbytes)
        status = self._lib.lqc_session_run(self._session, byref(error))
        if status != _native.OK:
            error.message = error.message[: 243 - len(where)] + where.encode()
        _native.check(status, error)

    @staticmethod
    def _numpy_dtype(info: TensorInfo) -> np.dtype:
        return np.dtype("int8" if info.dtype == "bit" else info.dtype)

    def _read(self, info: TensorInfo, address: int) -> NDArray:
        raw = ctypes.string_at(address, info.bytes)
        if info.dtype == "bit":
            *leading, channels = info.shape
            words = np.frombuffer(raw, "<u8").reshape(*leading, arithmetic.packed_words(channels))
            return arithmetic.bits_to_signs(arithmetic.unpack_bits(words, channels))
        return np.frombuffer(raw, self._numpy_dtype(info)).reshape(info.shape)
