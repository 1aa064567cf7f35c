"""One engine with one model, in a process of its own: answers every line of stdin with the time of one more image.

    python benchmarks/end_to_end/worker.py '{"engine": ..., "model": ..., "image": ..., "expected": ..., "key": ...,
                                             "threads": ..., "folders": [...]}'

`folders` are appended to sys.path: packages of the peers. `expected` is a .npz file, whose array `key` is what Keras
computes of the image. Prints one JSON object a line: first {"version", "file_bytes", "open_to_first_result_ms",
"correlation"}, then {"milliseconds", "peak_rss_bytes"} for each line read.

- Every answer is the time of a run that follows others without a pause, after WARM_SECONDS of them and at least one: a
  processor that has slept, caches that others have filled and threads that sleep are not the matter. The engines'
  own benchmark programs run for half a second before they measure.
- Peak memory is that of the process above what it had with the engine imported and no model.
- Before the file is opened, the engine is imported; the caller has seen to it that the file is in the system's cache.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], Any]

WARM_SECONDS = 0.05


def larq_clip(model: str, image: np.ndarray, threads: int) -> Callable[[], Run]:
    """An interpreter of larq_clip."""
    from larq_clip import _native
    from larq_clip.interpreter import Interpreter

    _native.library()  # the other engines' libraries are loaded by their import

    def load() -> Run:
        interpreter = Interpreter(model, num_threads=threads)
        return lambda: interpreter.predict(image)

    return load


def larq_compute_engine(model: str, image: np.ndarray, threads: int) -> Callable[[], Run]:
    """LCE's own interpreter, which is TensorFlow Lite with its four ops."""
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    def load() -> Run:
        interpreter = Interpreter(Path(model).read_bytes(), num_threads=threads)
        return lambda: interpreter.predict(image)

    return load


def litert(model: str, image: np.ndarray, threads: int) -> Callable[[], Run]:
    """LiteRT with XNNPACK, its default."""
    from ai_edge_litert.interpreter import Interpreter

    def load() -> Run:
        interpreter = Interpreter(model_path=model, num_threads=threads)
        interpreter.allocate_tensors()
        entry, exit_ = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

        def run() -> Any:
            interpreter.set_tensor(entry, image)
            interpreter.invoke()
            return interpreter.get_tensor(exit_)

        return run

    return load


def onnxruntime(model: str, image: np.ndarray, threads: int) -> Callable[[], Run]:
    """ONNX Runtime's processor provider; its threads spin during a run, and stop when it ends."""
    import onnxruntime as ort

    def load() -> Run:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: image})[0]

    return load


ENGINES = {
    "larq_clip": (larq_clip, "larq-clip"),
    "larq-compute-engine": (larq_compute_engine, "larq-compute-engine"),
    "litert": (litert, "ai-edge-litert"),
    "onnxruntime": (onnxruntime, "onnxruntime"),
}


def status_bytes(field: str) -> int:
    """A size that the kernel tells of this process: VmRSS, memory now, or VmHWM, the most there was."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}: memory is measured on Linux alone")
    return int(found[1]) * 1024


def forget_peak() -> None:
    """VmHWM starts again from what there is now: importing may have taken more for a while."""
    Path("/proc/self/clear_refs").write_text("5")


def correlation(result: Any, expected: np.ndarray) -> float:
    """Of the engine's output with that of Keras.

    Raises:
        RuntimeError: for another number of values, or one that is not finite.
    """
    flat = np.asarray(result, np.float64).ravel()
    if flat.shape != expected.ravel().shape or not np.isfinite(flat).all():
        raise RuntimeError(f"the output has shape {np.shape(result)}, accepted are finite numbers {expected.shape}")
    return float(np.corrcoef(flat, expected.ravel())[0, 1])


def main() -> None:
    """Load and serve."""
    a = json.loads(sys.argv[1])
    sys.path += a["folders"]
    factory, package = ENGINES[a["engine"]]
    load = factory(a["model"], np.load(a["image"]), a["threads"])
    expected = np.load(a["expected"])[a["key"]]
    forget_peak()
    before = status_bytes("VmRSS")
    start = time.perf_counter()
    run = load()
    result = run()
    first = time.perf_counter() - start
    facts = {
        "version": importlib.metadata.version(package),
        "file_bytes": Path(a["model"]).stat().st_size,
        "open_to_first_result_ms": 1e3 * first,
        "correlation": correlation(result, expected),
    }
    say(facts)
    for _ in sys.stdin:
        warm = time.perf_counter() + WARM_SECONDS
        while True:
            run()
            start = time.perf_counter()
            if start >= warm:
                break
        run()
        elapsed = time.perf_counter() - start
        say({"milliseconds": 1e3 * elapsed, "peak_rss_bytes": max(0, status_bytes("VmHWM") - before)})


def say(answer: dict[str, Any]) -> None:
    """One line to the parent; engines may print to stdout, so it has a file of its own."""
    ANSWERS.write(json.dumps(answer) + "\n")
    ANSWERS.flush()


if __name__ == "__main__":
    ANSWERS = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main()
