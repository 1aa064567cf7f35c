"""`larq-clip demo`: train in two stages, convert, run on the C runtime, compare every prediction, report.

larq_clip.demo.run(Path("demo"))
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import larq_clip
from larq_clip._quiet import import_tensorflow
from larq_clip.datasets import fashion_mnist_subset, load_idx_folder
from larq_clip.datasets.idx import ImageSet
from larq_clip.errors import LarqClipError
from larq_clip.files import atomic_write, write_target

if TYPE_CHECKING:
    from larq_clip._keras import keras

EPOCHS = (10, 6)
SMALLEST_IMAGE = 8
KERAS_TIMED, RUNTIME_TIMED = 100, 500
SATURATION = "_saturation"
FILES = ("model.lcb", "model.keras", "training.png", "report.json")


class DemoError(LarqClipError):
    """The runtime did not predict what Keras predicts."""


def run(
    output: str | os.PathLike,
    full: str | os.PathLike | None = None,
    *,
    epochs: tuple[int, int] = EPOCHS,
    train_images: int | None = None,
    test_images: int | None = None,
    seed: int = 1,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run the demo; prints its progress and one table, and writes `FILES` to the folder `output`, made where missing.

    Args:
        output: folder for model.lcb, model.keras, training.png and report.json.
        full: folder with the four IDX files of Fashion-MNIST; the embedded subset if None.
        epochs: epochs without and with clipping, at least one each.
        train_images: use only so many training images, the first; all if None.
        test_images: use only so many test images, the first; all if None.
        seed: of Python's, NumPy's and TensorFlow's random numbers.
        quiet: print nothing.

    Returns:
        What report.json holds.

    Raises:
        DemoError: where a prediction of the runtime, native or NEON, differs from Keras'; the files are written.
        ValueError: for wrong arguments and images of another kind.
        OSError: where the images cannot be read or `output` cannot be written; before training where that is known.
        RuntimeLibraryError: where the C runtime is missing, or the NEON build or its run fails.
    """
    clock = _Clock()
    console = Console(quiet=quiet)
    if len(epochs) != 2 or min(epochs) < 1:
        raise ValueError(f"epochs is {epochs!r}; accepted are two numbers from 1: epochs without, epochs with clipping")
    folder = _prepare(Path(output))
    (x_train, y_train), (x_test, y_test) = _load(full, train_images, test_images)
    height, width = x_test.shape[1:]
    console.print(
        f"{len(x_train):,} training and {len(x_test):,} test images of {height}x{width} pixels; loading TensorFlow",
        highlight=False,
    )
    import_tensorflow()
    from larq_clip._keras import keras
    from larq_clip.demo import model as network
    from larq_clip.demo import neon, report, training

    keras.utils.set_random_seed(seed)
    stages = training.Stages(*epochs)
    inputs = network.scale_images(x_test)
    model = network.build_clipped_model(height, width)
    clock.lap("loading")
    history = training.train(model, (network.scale_images(x_train), y_train), (inputs, y_test), stages, seed, console)
    keras_scores = model.predict(inputs, batch_size=500, verbose=0)
    clock.lap("training")

    data = larq_clip.convert_keras_model(model)
    clock.lap("conversion")
    interpreter = larq_clip.Interpreter(data)
    scores = interpreter.predict(inputs)
    clock.lap("runtime")

    skipped = neon.why_not()
    if skipped is None:
        console.print("building the NEON runtime and running it under qemu", highlight=False)
    neon_scores = neon.predict(data, inputs) if skipped is None else None
    clock.lap("neon")

    saturation = {
        name.removesuffix(SATURATION): [None if math.isnan(value) else value for value in history.pop(name)]
        for name in list(history)
        if name.endswith(SATURATION)
    }
    found: report.Report = {
        "stage1_accuracy": round(history["val_accuracy"][stages.unclipped - 1] * len(y_test)) / len(y_test),
        "stage2_accuracy": _accuracy(keras_scores, y_test),
        "runtime_accuracy": _accuracy(scores, y_test),
        "differing_predictions": _differing(scores, keras_scores),
        "largest_difference": _largest_difference(scores, keras_scores),
        "neon_accuracy": None if neon_scores is None else _accuracy(neon_scores, y_test),
        "neon_differing_predictions": None if neon_scores is None else _differing(neon_scores, keras_scores),
        "neon_largest_difference": None if neon_scores is None else _largest_difference(neon_scores, keras_scores),
        "neon_skipped_reason": skipped,
        "file_bytes": len(data),
        "float32_bytes": 4 * model.count_params(),
        "keras_ms_per_image": _keras_milliseconds(model, inputs),
        "runtime_ms_per_image": _median_milliseconds(interpreter.predict, inputs, RUNTIME_TIMED),
        "latency_conditions": "median over single images; Keras: compiled call on all cores; runtime: 1 thread, called "
        "from Python",
        "isa": interpreter.isa,
        "saturation": {layer: values[-1] for layer, values in saturation.items()},
        "train_images": len(x_train),
        "test_images": len(x_test),
        "epochs": {"unclipped": stages.unclipped, "clipped": stages.clipped},
        "seed": seed,
        "machine": report.describe_machine(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": _versions(),
        "history": history,
        "saturation_history": saturation,
    }
    clock.lap("latency")
    found["seconds"] = clock.laps()
    atomic_write(folder / "model.lcb", data)
    atomic_write(folder / "model.keras", _saved(model))
    atomic_write(folder / "report.json", (json.dumps(found, indent=2, allow_nan=False) + "\n").encode())
    atomic_write(folder / "training.png", report.draw_curves(found))
    report.print_table(console, found)
    console.print(f"written to {folder}: {', '.join(FILES)}", highlight=False, soft_wrap=True)
    _require_equality(found, folder)
    return found


class _Clock:
    """Seconds of each part, by the wall, and of all, by the wall and by the processor."""

    def __init__(self) -> None:
        self._parts: dict[str, float] = {}
        self._start = self._last = time.perf_counter()
        self._cpu = time.process_time()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._parts[name] = now - self._last
        self._last = now

    def laps(self) -> dict[str, float]:
        total = {"total": self._last - self._start, "total_cpu": time.process_time() - self._cpu}
        return {name: round(seconds, 3) for name, seconds in {**self._parts, **total}.items()}


def _prepare(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        write_target(folder / name)
    return folder


def _load(full: str | os.PathLike | None, train_images: int | None, test_images: int | None) -> ImageSet:
    for name, count in (("train_images", train_images), ("test_images", test_images)):
        if count is not None and count < 1:
            raise ValueError(f"{name} is {count}; accepted are numbers from 1, and None for all")
    (x_train, y_train), (x_test, y_test) = fashion_mnist_subset() if full is None else load_idx_folder(full)
    where = "the embedded images" if full is None else str(full)
    if min(x_train.shape[1:]) < SMALLEST_IMAGE:
        raise ValueError(
            f"{where}: the images have {x_train.shape[1:]} pixels; accepted are sides from {SMALLEST_IMAGE}"
        )
    largest = int(max(y_train.max(), y_test.max()))
    if largest > 9:
        raise ValueError(f"{where}: there is a label {largest}; the demo's network has the classes 0 to 9")
    return (x_train[:train_images], y_train[:train_images]), (x_test[:test_images], y_test[:test_images])


def _accuracy(scores: NDArray, labels: NDArray) -> float:
    return float(np.mean(np.argmax(scores, axis=-1) == labels))


def _differing(scores: NDArray, expected: NDArray) -> int:
    return int(np.sum(np.argmax(scores, axis=-1) != np.argmax(expected, axis=-1)))


def _largest_difference(scores: NDArray, expected: NDArray) -> float:
    return float(np.max(np.abs(scores.astype(np.float64) - expected)))


def _median_milliseconds(predict: Callable[[NDArray], Any], images: NDArray, count: int) -> float:
    """Median time of `predict` on one image, after one call to warm up."""
    predict(images[:1])
    seconds = []
    for i in range(count):
        image = images[i % len(images)][np.newaxis]
        start = time.perf_counter()
        predict(image)
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def _keras_milliseconds(model: keras.Model, images: NDArray) -> float:
    from larq_clip._keras import tf

    compiled = tf.function(lambda batch: model(batch, training=False))
    return _median_milliseconds(lambda image: compiled(tf.constant(image)).numpy(), images, KERAS_TIMED)


def _saved(model: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory(prefix="larq-clip-demo-") as temporary:
        path = Path(temporary) / "model.keras"
        model.save(path)
        return path.read_bytes()


def _versions() -> dict[str, str]:
    installed = {name: metadata.version(name) for name in ("tensorflow", "tf-keras", "larq", "numpy")}
    return {"larq-clip": larq_clip.__version__, "python": platform.python_version(), **installed}


def _require_equality(found: dict[str, Any], folder: Path) -> None:
    wrong = [
        f"{found[key]} of {found['test_images']:,} predictions of {what} differ from Keras"
        for key, what in (
            ("differing_predictions", f"the runtime ({found['isa']})"),
            ("neon_differing_predictions", "the NEON build"),
        )
        if found[key]
    ]
    if wrong:
        raise DemoError(
            f"{' and '.join(wrong)}, which must not happen: please report it with {folder / 'model.keras'} and "
            f"{folder / 'model.lcb'}"
        )


__all__ = ["DemoError", "run"]
