"""A pretrained QuickNet as an integer program, without any retraining: what each ingredient of `quantize_model` brings.

    python benchmarks/accuracy/quicknet_quantize.py --weights FILE.npz --photos FILE.zip

plain -> clip_model(step="auto") -> quantize_model, in the variants of `quicknet_variants.py`. Cross-validation: steps
and formats are chosen on one half of the photos and judged on the other, then the halves change places, so every photo
is judged once. Each is judged in several versions, mirrored and moved, which says more of agreement and of flipped
signs, though not of top-1. Rows go to benchmarks/results/quicknet.json as they are measured; --resume goes on. Then
bring the README up to date with `quicknet_tables.py`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import machine  # noqa: E402
import quicknet_measure as measure  # noqa: E402
import quicknet_model  # noqa: E402
import quicknet_variants  # noqa: E402
from quicknet_tables import (  # noqa: E402
    QUANTIZE,
    RECORD,
    quantize_table,
    read_rows,
    replace_rows,
    save_flips_chart,
)
from quicknet_variants import VARIANTS, Quantized  # noqa: E402

from larq_clip._keras import keras  # noqa: E402
from larq_clip.models import accumulator_clips, binary_layers, clip_model, quantize_model  # noqa: E402

RESULTS = Path(__file__).parent.parent / "results"
COMMAND = "python benchmarks/accuracy/quicknet_quantize.py --weights FILE.npz --photos FILE.zip"
MOVE = 8  # pixels


def versions(photos: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photos, mirrored, and moved down and to the left, the border repeated: ``(3, photos, height, width, 3)``."""
    padded = np.pad(photos, ((0, 0), (MOVE, 0), (0, MOVE), (0, 0)), "edge")
    return np.stack([photos, photos[:, :, ::-1], padded[:, :-MOVE, MOVE:]])


def halves(photos: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Numbers of the photos to calibrate on and to judge on; twice, changing places.

    Raises:
        ValueError: for fewer than 2 photos.
    """
    if photos < 2:
        raise ValueError(f"{photos} photos; accepted are at least 2, to calibrate on one half and judge on the other")
    mixed = np.random.default_rng(seed).permutation(photos)
    one, other = np.sort(mixed[: photos // 2]), np.sort(mixed[photos // 2 :])
    return [(one, other), (other, one)]


class Experiment:
    """One network and its photos; per half the clipped model, chosen on it, and what that makes of the other half."""

    def __init__(self, model: keras.Model, photos: NDArray[np.uint8], classes: NDArray[np.int64], seed: int):
        self.classes = classes
        self.layers = [layer.name for layer in binary_layers(model)]
        self.inputs = np.stack([quicknet_model.normalize(each) for each in versions(photos)])
        self.halves = halves(len(photos), seed)
        self.clipped = [
            clip_model(model, step="auto", calibration_data=self.inputs[0][calibration])
            for calibration, _ in self.halves
        ]
        judged = [self._judged(half) for half in range(2)]
        self.plain = [measure.run(model, inputs) for inputs in judged]
        self.clip_runs = [measure.run(clipped, inputs) for clipped, inputs in zip(self.clipped, judged)]

    def _judged(self, half: int) -> NDArray[np.float32]:
        """All versions of the photos to judge on, version after version."""
        return np.concatenate(list(self.inputs[:, self.halves[half][1]]))

    def steps(self) -> list[list[int]]:
        """The steps of the clips, per half."""
        clips = [accumulator_clips(clipped) for clipped in self.clipped]
        return [[int(own[name].step) for name in self.layers] for own in clips]

    def measure(self, variant: Quantized) -> dict[str, object]:
        """Figures of a variant, means over the two halves; of thorough ones the report on the half calibrated on."""
        runs: list[measure.Run] = []
        extra: dict[str, object] = {}
        for half, (calibration, _) in enumerate(self.halves):
            if variant.arguments is None:
                runs.append(self.clip_runs[half])
                continue
            data = self.inputs[0][calibration]
            with_report = half == 0 and variant.thorough
            made = quantize_model(self.clipped[half], data, report=with_report, **variant.arguments)
            model, report = made if with_report else (made, [])
            if variant.change is not None:
                model = variant.change(model, self.clipped[half], data)
            runs.append(measure.run(model, self._judged(half)))
            if with_report:
                extra["report"] = [row._asdict() for row in report if row.kind != "ReLU"]
                extra["exact"] = self._is_exact(model, data[:2])
            keras.backend.clear_session()  # Keras keeps the memory of models
        return {"variant": variant.name, **self._figures(runs), **extra}

    def _is_exact(self, model: keras.Model, inputs: NDArray[np.float32]) -> bool:
        """Whether layers compute what the integer reference does: of the first, a middle and the last block."""
        blocks = sorted({0, len(self.layers) // 2, len(self.layers) - 1})
        wanted = {f"b{block}_{part}" for block in blocks for part in ("conv", "bn", "add", "add_int8", "add_int16")}
        names = [layer.name for layer in model.layers if layer.name in wanted]
        return not quicknet_variants.inexact_layers(model, inputs, names)

    def _figures(self, runs: list[measure.Run]) -> dict[str, object]:
        figures: dict[str, list] = {}
        for half, run in enumerate(runs):
            plain, clip = self.plain[half], self.clip_runs[half]
            classes = self.classes[self.halves[half][1]]
            first = slice(len(classes))  # the photos as they are
            best5 = np.argsort(-run.softmax[first], axis=1)[:, :5]
            found = {
                "accuracy": (run.predictions()[first] == classes).mean(),
                "top5": (best5 == classes[:, None]).any(1).mean(),
                "agreement": (run.predictions() == plain.predictions())[first].mean(),
                "agreement_versions": (run.predictions() == plain.predictions()).mean(),
                "agreement_clipped": (run.predictions() == clip.predictions()).mean(),
                "softmax_distance": np.abs(run.softmax - plain.softmax).sum(1).mean(),
                "flipped": run.flipped(plain).mean(0),
                "flipped_clipped": run.flipped(clip).mean(0),
            }
            for name, value in found.items():
                figures.setdefault(name, []).append(value)
        mean = {name: np.mean(values, axis=0) for name, values in figures.items()}
        flipped, by_quantization = mean.pop("flipped"), mean.pop("flipped_clipped")
        return {
            **{name: round(float(value), 4) for name, value in mean.items()},
            "flipped_signs": {name: float(f"{share:.4g}") for name, share in zip(self.layers, flipped)},
            "flipped_against_clipped": {
                name: float(f"{share:.4g}") for name, share in zip(self.layers, by_quantization)
            },
        }


# ---- Recording ------------------------------------------------------------------------------------------------------


def write_chart(rows: list[dict], path: Path) -> None:
    """Signs flipped against the plain model per layer, one line a variant."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    colours = pyplot.get_cmap("tab20").colors[::2] + pyplot.get_cmap("tab20").colors[1::2]
    for row, colour in zip(rows, colours):
        flipped = row["flipped_signs"]
        axes.plot(
            list(flipped),
            [100 * share for share in flipped.values()],
            "--" if row["variant"] == "clip only" else "-",
            marker="o",
            ms=3,
            c="black" if row["variant"] == "clip only" else colour,
            label=f"{row['variant']} (agreement {row['agreement_versions']:.0%})",
        )
    save_flips_chart(
        figure, axes, f"Pretrained QuickNet as an integer program, no retraining, {rows[0]['images']} photos", path
    )
    pyplot.close(figure)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="npz archive; quicknet_model.py says of what")
    parser.add_argument("--photos", type=Path, required=True, help="zip of PNG files named CLASS_anything.png")
    parser.add_argument("--resume", action="store_true", help="measure only variants that are not recorded yet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RECORD)
    parser.add_argument("--chart", type=Path, default=RESULTS / "quicknet_quantized.png")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure all variants and write the results."""
    options = parse(arguments)
    try:
        weights = quicknet_model.load_weights(options.weights)
        _, photos, classes = quicknet_model.load_photos(options.photos)
        experiment = Experiment(quicknet_model.build(weights, photos.shape[1:3]), photos, classes, options.seed)
    except (OSError, ValueError) as error:
        sys.exit(f"quicknet_quantize.py: {error}")
    described = machine.describe()
    date = described.pop("date")
    rows = {row["variant"]: row for row in read_rows(options.output, QUANTIZE)} if options.resume else {}
    wanted = [variant for variant in VARIANTS if variant.name not in rows]
    start = time.monotonic()
    for number, variant in enumerate(wanted, 1):
        rows[variant.name] = {
            "experiment": QUANTIZE,
            "model": "quicknet",
            "dataset": "ImageNet sample",
            **experiment.measure(variant),
            "plain_accuracy": round(float(np.mean(_plain_accuracy(experiment))), 4),
            "images": len(classes),
            "versions": len(experiment.inputs),
            "steps": experiment.steps(),
            "machine": described,
            "date": date,
            "command": COMMAND,
        }
        replace_rows(options.output, QUANTIZE, list(rows.values()))
        spent = time.monotonic() - start
        left = spent / number * (len(wanted) - number)
        print(f"{number}/{len(wanted)} {variant.name}: {spent:.0f} s, about {left:.0f} s left", flush=True)
    write_chart(list(rows.values()), options.chart)
    print(quantize_table(list(rows.values())))


def _plain_accuracy(experiment: Experiment) -> list[float]:
    found = []
    for run, (_, judged) in zip(experiment.plain, experiment.halves):
        classes = experiment.classes[judged]
        found.append(float((run.predictions()[: len(classes)] == classes).mean()))
    return found


if __name__ == "__main__":
    main()
