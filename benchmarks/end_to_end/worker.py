"""One engine with one model, in a process of its own: answers every line of stdin with the time of one more image.

    python benchmarks/end_to_end/worker.py ENGINE MODEL IMAGE.npy THREADS [FOLDER ...]

The folders are appended to sys.path: packages of the peers. Prints one JSON object a line: first {"version",
"file_bytes"}, then {"milliseconds", "peak_rss_bytes"} for each line read. Peak memory is that of the process above what
it had with the engine imported and no model.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], Any]


def larq_clip(model: str, image: np.ndarray, threads: int) -> Callable[[], Run]:
    """An interpreter of larq_clip."""
    from larq_clip.interpreter import Interpreter

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
    """ONNX Runtime's processor provider."""
    import onnxruntime as ort

    def load() -> Run:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: image})

    return load


ENGINES = {
    "larq_clip": (larq_clip, "larq-clip"),
    "larq-compute-engine": (larq_compute_engine, "larq-compute-engine"),
    "litert": (litert, "ai-edge-litert"),
    "onnxruntime": (onnxruntime, "onnxruntime"),
}


def resident_bytes() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def say(answer: dict[str, Any]) -> None:
    """One line to the parent; engines may print to stdout, so it has a file of its own."""
    ANSWERS.write(json.dumps(answer) + "\n")
    ANSWERS.flush()


def main() -> None:
    """Load and serve."""
    engine, model, image_path, threads, *folders = sys.argv[1:]
    sys.path += folders
    factory, package = ENGINES[engine]
    load = factory(model, np.load(image_path), int(threads))
    before = resident_bytes()
    run = load()
    run()
    say({"version": importlib.metadata.version(package), "file_bytes": Path(model).stat().st_size})
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        elapsed = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        say({"milliseconds": 1e3 * elapsed, "peak_rss_bytes": max(0, peak - before)})


if __name__ == "__main__":
    ANSWERS = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main()
