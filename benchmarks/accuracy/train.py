"""One experiment: train a network without the clip, then with it in several ways, quantize, run on the C runtime.

    python benchmarks/accuracy/train.py benchmarks/accuracy/configs/vgg_small_cifar10.json --seed 1 --data-dir DIR

Every step of `STEPS` leaves a model and a record in the work folder; a step that is there is not done again, and a
killed training goes on at the epoch in which it was killed. `record.py` gathers the records.

A config is a JSON object: experiment, network (see networks.py), width, dataset, images (of the training set), batch,
stages (a list of two objects with epochs and learning_rate, Adam from that rate by half a cosine), steps (names of
`STEPS`) and calibration_images (training images that choose formats).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))
from images import Batches, Images, load, scale  # noqa: E402
from machine import describe  # noqa: E402
from networks import NETWORKS  # noqa: E402
from quicknet_variants import sign_after_rounding  # noqa: E402
from variants import saturate_partial_sums  # noqa: E402

import larq_clip  # noqa: E402
from larq_clip._keras import keras, tf  # noqa: E402
from larq_clip.callbacks import BatchNormQuantization  # noqa: E402
from larq_clip.files import atomic_write  # noqa: E402
from larq_clip.layers import FixedPointBatchNormalization  # noqa: E402
from larq_clip.models import accumulator_clips, clip_model, quantize_model  # noqa: E402

LEAST_SHARE = 0.01
TEST_BATCH = 250


class Experiment:
    """A config with a seed, its data and its work folder."""

    def __init__(self, config: dict[str, Any], seed: int, images: Images, folder: Path):
        self.config, self.seed, self.images, self.folder = config, seed, images, folder
        self.test = scale(images.x_test), images.y_test
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def calibration(self) -> np.ndarray:
        return scale(self.images.x_train[: self.config["calibration_images"]])

    def path(self, step: str, suffix: str) -> Path:
        return self.folder / f"{step}.{suffix}"

    def model(self, step: str) -> keras.Model:
        """The model that a step left."""
        return keras.models.load_model(self.path(step, "keras"), compile=False)

    def fit(
        self, model: keras.Model, stage: int, step: str, callbacks: list[Any] | None = None, epochs: int = 0
    ) -> int:
        """Train by the recipe of a stage, going on where it was killed. Returns the epochs."""
        recipe = self.config["stages"][stage]
        epochs = epochs or recipe["epochs"]
        model.compile(
            keras.optimizers.Adam(recipe["learning_rate"]),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        backup = keras.callbacks.BackupAndRestore(self.path(step, "backup"), delete_checkpoint=True)
        progress = Progress(self.folder / f"{step}.csv", recipe["learning_rate"], epochs, f"{self.folder} {step}")
        batches = Batches(
            self.images,
            self.config["images"],
            self.config["batch"],
            self.config["dataset"],
            1000 * self.seed + stage,
            first_epoch=progress.done,
        )
        model.fit(batches, epochs=epochs, verbose=0, shuffle=False, callbacks=[*(callbacks or []), progress, backup])
        return epochs

    def accuracy(self, outputs: np.ndarray) -> float:
        """Share of the test images whose largest output is their label's."""
        return float(np.mean(outputs.argmax(1) == self.test[1]))

    def outputs(self, model: keras.Model) -> np.ndarray:
        """``model(x, training=False)`` of the test images."""
        run = tf.function(lambda x: model(x, training=False))
        x = self.test[0]
        return np.concatenate([run(tf.constant(x[i : i + TEST_BATCH])) for i in range(0, len(x), TEST_BATCH)])

    def outputs_of(self, step: str) -> np.ndarray:
        """What the model that a step left makes of the test images, kept in a file."""
        path = self.path(step, "npy")
        if not path.is_file():
            np.save(self.path(step, "part.npy"), self.outputs(self.model(step)))
            self.path(step, "part.npy").replace(path)
        return np.load(path)

    def run(self, step: str) -> dict[str, Any]:
        """Do a step, and those that it starts from, unless they are done; its record."""
        record = self.path(step, "json")
        if record.is_file():
            return json.loads(record.read_text())
        action, parent = STEPS[step]
        if parent:
            self.run(parent)
        keras.utils.set_random_seed(1000 * self.seed + list(STEPS).index(step))
        start = time.monotonic()
        found = action(self, step, parent)
        result = {
            "experiment": self.config["experiment"],
            "model": self.config["network"],
            "width": self.config["width"],
            "dataset": self.config["dataset"],
            "variant": step,
            "seed": self.seed,
            "images": self.config["images"],
            "test_images": len(self.test[1]),
            **found,
            "seconds": round(time.monotonic() - start, 1),
            "machine": {**describe(), "tensorflow": tf.__version__},
        }
        atomic_write(record, json.dumps(result, indent=2).encode() + b"\n")
        print(f"{self.config['experiment']} seed {self.seed} {step}: {found}", flush=True)
        return result


class Progress(keras.callbacks.Callback):
    """Sets the learning rate of every batch, logs epochs to a CSV file and prints the time that is left.

    rate(p) = start * max(0.01, (1 + cos(pi p)) / 2), with p the share of the training that is over.
    """

    def __init__(self, path: Path, rate: float, epochs: int, title: str):
        super().__init__()
        self.path, self.rate, self.epochs, self.title = path, rate, epochs, title
        self.lines = path.read_text().splitlines() if path.is_file() else []
        self.epoch = self.done = len(self.lines)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.began = epoch, time.monotonic()
        del self.lines[epoch:]

    def on_train_batch_begin(self, batch, logs=None):
        share = max(
            LEAST_SHARE, (1 + math.cos(math.pi * (self.epoch + batch / self.params["steps"]) / self.epochs)) / 2
        )
        keras.backend.set_value(self.model.optimizer.learning_rate, self.rate * share)

    def on_epoch_end(self, epoch, logs=None):
        left = (time.monotonic() - self.began) * (self.epochs - epoch - 1)
        self.lines.append(f"{epoch},{logs['loss']:.5f},{logs['accuracy']:.5f}")
        atomic_write(self.path, ("\n".join(self.lines) + "\n").encode())
        print(
            f"{self.title}: epoch {epoch + 1}/{self.epochs} loss {logs['loss']:.3f} accuracy {logs['accuracy']:.3f}, "
            f"{left / 60:.1f} min left",
            flush=True,
        )


# ---- Steps ----------------------------------------------------------------------------------------------------------


def _finish(e: Experiment, step: str, model: keras.Model, epochs: int, **more: Any) -> dict[str, Any]:
    part = e.path(step, "part.keras")
    model.save(part)
    part.replace(e.path(step, "keras"))
    return {"epochs": epochs, "accuracy": e.accuracy(e.outputs_of(step)), **more}


def _agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the images for which both give the same class."""
    return float(np.mean(one.argmax(1) == other.argmax(1)))


def _steps_of(model: keras.Model) -> list[float]:
    return [float(clip.step) for clip in accumulator_clips(model).values()]


def train_unclipped(e: Experiment, step: str, parent: str | None) -> dict[str, Any]:
    """Stage 1; or with a parent, stage 2 without a clip, the control: what more epochs bring by themselves."""
    model = e.model(parent) if parent else NETWORKS[e.config["network"]](e.config["width"])
    return _finish(e, step, model, e.fit(model, 1 if parent else 0, step))


def train_clipped(e: Experiment, step: str, parent: str | None) -> dict[str, Any]:
    """Stage 2 with the clip at step 1 or 2; without a parent, clipped from the start, as long as both together."""
    size = 2 if step.endswith("2") else 1
    if parent:
        model = clip_model(e.model(parent), step=size)
        untrained = e.accuracy(e.outputs(model))
        return _finish(e, step, model, e.fit(model, 1, step), accuracy_before_stage2=untrained, steps=_steps_of(model))
    model = clip_model(NETWORKS[e.config["network"]](e.config["width"]), step=size)
    epochs = sum(stage["epochs"] for stage in e.config["stages"])
    return _finish(e, step, model, e.fit(model, 0, step, epochs=epochs), steps=_steps_of(model))


def clip_calibrated(e: Experiment, step: str, parent: str | None) -> dict[str, Any]:
    """step="auto" on what stage 1 left, without any training behind it."""
    model = clip_model(e.model(parent), step="auto", calibration_data=e.calibration)
    return _finish(e, step, model, 0, steps=_steps_of(model))


def train_calibrated(e: Experiment, step: str, parent: str | None) -> dict[str, Any]:
    """Stage 2 behind step="auto"."""
    model = e.model(parent)
    return _finish(e, step, model, e.fit(model, 1, step), steps=_steps_of(model))


QUANTIZED: dict[str, dict[str, Any]] = {
    "bn": {"float_layers": "float32", "residual_bits": 16},
    "integer": {},
    "integer_residual16": {"residual_bits": 16},
    "integer_tensor": {"granularity": "tensor"},
    "integer_paper": {"variables": "paper"},
}


def quantize(e: Experiment, step: str, parent: str | None) -> dict[str, Any]:
    """`quantize_model` without training behind it; "bn": only batch norms, sums in 16 bits, other layers float32."""
    model = quantize_model(e.model(parent), e.calibration, **QUANTIZED[step.split("@")[0]])
    found = _finish(e, step, model, 0)
    return {**found, "agreement": _agreement(e.outputs_of(step), e.outputs_of(parent))}


def saturate(e: Experiment, step: str, parent: str | None) -> dict[str, Any]:
    """The clipped network with sums that saturate after every addition; nothing is trained."""
    model = saturate_partial_sums(e.model(parent))
    outputs = e.outputs(model)
    return {"epochs": 0, "accuracy": e.accuracy(outputs), "agreement": _agreement(outputs, e.outputs_of(parent))}


def see_stored_signs(e: Experiment, step: str, parent: str | None) -> dict[str, Any]:
    """The quantized network with signs behind the rounding of stored sums; nothing is trained."""
    outputs = e.outputs(sign_after_rounding(e.model(parent), e.model(parent), e.calibration))
    return {"epochs": 0, "accuracy": e.accuracy(outputs), "agreement": _agreement(outputs, e.outputs_of(parent))}


def train_batch_norms(e: Experiment, step: str, parent: str | None) -> dict[str, Any]:
    """Algorithm 2 in one more stage like the second: batch norms one after another, or all at once."""
    model = e.model(parent)
    norms = sum(isinstance(layer, FixedPointBatchNormalization) for layer in model.layers)
    batches = e.config["stages"][1]["epochs"] * (e.config["images"] // e.config["batch"])
    if step.startswith("bn_iterative"):
        schedule = BatchNormQuantization(batches_per_stage=max(1, batches // (norms + 1)))
    else:
        schedule = BatchNormQuantization(per_stage="all")
    return _finish(e, step, model, e.fit(model, 1, step, [schedule]))


def run_on_device(e: Experiment, step: str, parent: str | None) -> dict[str, Any]:
    """Convert, run all test images on the C runtime and compare its outputs with Keras's."""
    model = e.model(parent)
    path = e.path(step, "lcb")
    atomic_write(path, larq_clip.convert_keras_model(model))
    outputs = larq_clip.Interpreter(str(path)).predict(e.test[0])
    expected = e.outputs_of(parent)
    return {
        "epochs": 0,
        "accuracy": e.accuracy(outputs),
        "differing_predictions": int(np.sum(outputs.argmax(1) != expected.argmax(1))),
        "largest_difference": float(np.max(np.abs(outputs - expected))),
        "file_bytes": path.stat().st_size,
    }


# Of each step: what is done, and the step whose model it starts from.
STEPS: dict[str, tuple[Any, str | None]] = {
    "stage1": (train_unclipped, None),
    "stage1_continued": (train_unclipped, "stage1"),
    "clip1": (train_clipped, "stage1"),
    "clip2": (train_clipped, "stage1"),
    "auto_untrained": (clip_calibrated, "stage1"),
    "auto": (train_calibrated, "auto_untrained"),
    "no_stage1_clip1": (train_clipped, None),
    "no_stage1_clip2": (train_clipped, None),
}
for _parent in ("clip1", "clip2", "auto_untrained", "auto"):
    for _kind in QUANTIZED:
        STEPS[f"{_kind}@{_parent}"] = (quantize, _parent)
    STEPS[f"saturating@{_parent}"] = (saturate, _parent)
    STEPS[f"sign_after@{_parent}"] = (see_stored_signs, f"integer@{_parent}")
    STEPS[f"bn_iterative@{_parent}"] = (train_batch_norms, f"integer@{_parent}")
    STEPS[f"bn_at_once@{_parent}"] = (train_batch_norms, f"integer@{_parent}")
    STEPS[f"runtime@{_parent}"] = (run_on_device, f"integer@{_parent}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, help="where the data set is; see images.py")
    parser.add_argument("--work", type=Path, default=Path("build/accuracy"), help="models and records of the steps")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), help="these only, and what they start from")
    parser.add_argument("--threads", type=int, default=0, help="of TensorFlow; 0: all")
    arguments = parser.parse_args()
    if arguments.threads:
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    config = json.loads(arguments.config.read_text())
    images = load(config["dataset"], arguments.data_dir)
    folder = arguments.work / config["experiment"] / f"seed{arguments.seed}"
    experiment = Experiment(config, arguments.seed, images, folder)
    for step in arguments.steps or config["steps"]:
        experiment.run(step)


if __name__ == "__main__":
    main()
