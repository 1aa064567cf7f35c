"""What `larq_clip.callbacks.ThresholdRange` brings: constant channels and accuracy, with it and without.

    python benchmarks/accuracy/threshold_range.py [--output benchmarks/results/threshold_range.json]

For each seed a small VGG-style network (`build_network`) is trained once without clipping on embedded Fashion-MNIST
images (stage 1). From these weights stage 2 starts anew for each width of the clip and each variant: without the
callback, projecting after every epoch, projecting after every batch; same batches, fresh optimizer. Measured after each
stage 2, over the channels on whose thresholds the callback acts:

- `constant_by_threshold`: share of the channels whose sign is the same for every value that leaves the clip,
- `constant_on_test_images`: share of those whose sign is the same at every pixel of every test image,
- `moved`: channels that the callback moved, counted once per projection,
- `accuracy` on the test images. Nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from machine import describe  # noqa: E402

import larq_clip  # noqa: E402
from larq_clip._callbacks.threshold_range import threshold_pairs, thresholds  # noqa: E402
from larq_clip._keras import keras, lq  # noqa: E402
from larq_clip.callbacks import ThresholdRange  # noqa: E402
from larq_clip.demo.model import scale_images  # noqa: E402
from larq_clip.models import clip_model, set_clipping  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
VARIANTS: dict[str, str | None] = {"without": None, "every epoch": "epoch", "every batch": "batch"}
BATCH = 64
LEARNING_RATES = (3e-3, 2e-3)


def build_network() -> keras.Model:
    """Two binary convolutions of 288 and 576 taps and a binary dense layer of 3,136; ends in full precision."""
    binary = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "use_bias": False,
    }

    def norm(name: str) -> keras.layers.Layer:
        return keras.layers.BatchNormalization(momentum=0.9, name=name)

    return keras.Sequential(
        [
            keras.layers.InputLayer((28, 28, 1)),
            keras.layers.Conv2D(32, 3, padding="same", use_bias=False, name="stem"),
            keras.layers.MaxPool2D(2, name="stem_pool"),
            norm("stem_norm"),
            lq.layers.QuantConv2D(64, 3, padding="same", pad_values=1.0, name="conv1", **binary),
            keras.layers.MaxPool2D(2, name="pool1"),
            norm("norm1"),
            lq.layers.QuantConv2D(64, 3, padding="same", pad_values=1.0, name="conv2", **binary),
            norm("norm2"),
            keras.layers.Flatten(name="flatten"),
            lq.layers.QuantDense(128, name="dense", **binary),
            norm("norm3"),
            lq.layers.QuantDense(10, input_quantizer="ste_sign", activation="softmax", name="classifier"),
        ],
        name="threshold_range",
    )


def compile_for(model: keras.Model, stage: int) -> None:
    """A fresh optimizer with the stage's learning rate."""
    optimizer = keras.optimizers.Adam(LEARNING_RATES[stage])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])


def constant_channels(model: keras.Model, images: np.ndarray) -> tuple[float, float]:
    """Shares of channels that are constant by their threshold, and on these images; see the module."""
    by_threshold, on_images = [], []
    for _, clip, norm in threshold_pairs(model):
        tau, gamma = thresholds(norm), norm.gamma.numpy()
        largest = clip.largest
        # +1 <=> c >= tau for gamma > 0, c <= tau for gamma < 0; with gamma = 0 always the sign of beta.
        always = np.where(gamma > 0, tau <= -largest, tau >= largest)
        never = np.where(gamma > 0, tau > largest, tau < -largest)
        by_threshold.append(always | never | (gamma == 0))
        output = keras.Model(model.inputs, norm.output).predict(images, batch_size=500, verbose=0)
        positive = (output >= 0).reshape(-1, output.shape[-1])
        on_images.append(positive.all(0) | ~positive.any(0))
    return float(np.concatenate(by_threshold).mean()), float(np.concatenate(on_images).mean())


def run(seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Stage 1 once, then stage 2 for each width and variant."""
    (x, y), (x_test, y_test) = larq_clip.datasets.fashion_mnist_subset()
    x, y, x_test = scale_images(x[: arguments.images]), y[: arguments.images], scale_images(x_test)
    keras.utils.set_random_seed(seed)
    plain = build_network()
    compile_for(plain, 0)
    plain.fit(x, y, batch_size=BATCH, epochs=arguments.stage_1, verbose=0)
    unclipped = plain.evaluate(x_test, y_test, batch_size=500, verbose=0)[1]
    results = []
    for bits in arguments.bits:
        for variant, every in VARIANTS.items():
            start = time.monotonic()
            model = clip_model(plain, bits=bits)
            set_clipping(model, True)
            before, _ = constant_channels(model, x_test[:500])
            compile_for(model, 1)
            keras.utils.set_random_seed(1000 + seed)
            callbacks = [] if every is None else [ThresholdRange(every)]
            history = model.fit(
                x, y, batch_size=BATCH, epochs=arguments.stage_2, verbose=0, callbacks=callbacks
            ).history
            by_threshold, on_images = constant_channels(model, x_test)
            moved = sum(sum(values) for name, values in history.items() if name.endswith("_thresholds_moved"))
            results.append(
                {
                    "seed": seed,
                    "bits": bits,
                    "variant": variant,
                    "accuracy_stage_1": unclipped,
                    "constant_by_threshold_before": before,
                    "accuracy": model.evaluate(x_test, y_test, batch_size=500, verbose=0)[1],
                    "constant_by_threshold": by_threshold,
                    "constant_on_test_images": on_images,
                    "moved": int(moved),
                    "seconds": round(time.monotonic() - start, 1),
                }
            )
            print(json.dumps(results[-1]), flush=True)
    return results


def summarize(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds; `gain` is the accuracy above that of the same seed without."""
    without = {(r["seed"], r["bits"]): r["accuracy"] for r in results if r["variant"] == "without"}
    results = [{**r, "gain": r["accuracy"] - without[r["seed"], r["bits"]]} for r in results]
    names = ("accuracy_stage_1", "accuracy", "gain", "constant_by_threshold", "constant_on_test_images", "moved")
    summary = []
    for bits in sorted({result["bits"] for result in results}, reverse=True):
        for variant in VARIANTS:
            group = [r for r in results if (r["bits"], r["variant"]) == (bits, variant)]
            row: dict[str, Any] = {"bits": bits, "variant": variant, "seeds": len(group)}
            for name in names:
                values = [r[name] for r in group]
                row[name] = {"mean": round(statistics.mean(values), 5)}
                if len(values) > 1:
                    row[name]["deviation"] = round(statistics.stdev(values), 5)
            summary.append(row)
    return summary


def main() -> None:
    """Run all experiments and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "threshold_range.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6, 7, 8])
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6])
    parser.add_argument("--images", type=int, default=5000, help="training images")
    parser.add_argument("--stage-1", type=int, default=3, help="epochs without clipping")
    parser.add_argument("--stage-2", type=int, default=3, help="epochs with clipping")
    arguments = parser.parse_args()
    results = [result for seed in arguments.seeds for result in run(seed, arguments)]
    report = {
        "machine": describe(),
        "command": " ".join(["python", "benchmarks/accuracy/threshold_range.py", *sys.argv[1:]]),
        "settings": {
            "data": "larq_clip.datasets.fashion_mnist_subset, 2,000 test images",
            **{name: getattr(arguments, name) for name in ("seeds", "bits", "images", "stage_1", "stage_2")},
            "batch": BATCH,
            "learning_rates": LEARNING_RATES,
        },
        "summary": summarize(results),
        "results": results,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["summary"], indent=2))


if __name__ == "__main__":
    main()
