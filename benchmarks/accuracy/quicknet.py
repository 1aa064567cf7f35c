"""A pretrained residual network under the clip, without any retraining: QuickNet, trained on ImageNet by Larq.

    python benchmarks/accuracy/quicknet.py --weights FILE.npz --photos FILE.zip --golden FILE.npz

Rebuilds the network in Keras (`quicknet_model.py`), checks it against softmax outputs that another engine computed, and
measures what clips with different steps cost. Steps are chosen on some photos and judged on the others, for several
random splits. Writes benchmarks/results/quicknet.json and quicknet_flips.png.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import machine  # noqa: E402
import quicknet_measure as measure  # noqa: E402
import quicknet_model  # noqa: E402
from quicknet_tables import CLIP, RECORD, clip_table, replace_rows, save_flips_chart  # noqa: E402

from larq_clip._keras import keras  # noqa: E402
from larq_clip.models import binary_layers  # noqa: E402

RESULTS = Path(__file__).parent.parent / "results"
COMMAND = "python benchmarks/accuracy/quicknet.py --weights FILE.npz --photos FILE.zip --golden FILE.npz"
PERCENTILES = (99, 99.9, 99.99, 100)
# Float engines add in different orders, so signs near zero flip: single photos differ, few change their class.
GOLDEN_AGREEMENT, GOLDEN_MEDIAN = 0.95, 1e-4


# ---- Against another engine -----------------------------------------------------------------------------------------


def compare_golden(
    names: list[str], classes: NDArray, softmax: NDArray, golden: dict[str, NDArray]
) -> dict[str, float]:
    """How close the rebuilt network is to recorded outputs: `names`, `y` (classes) and `softmax` per photo.

    Raises:
        ArchiveError: where they are of other photos, or the network is not the same.
    """
    if [Path(name).name for name in names] != [str(name) for name in golden["names"]] or any(classes != golden["y"]):
        raise quicknet_model.ArchiveError("the golden outputs are of other photos than those given")
    expected = golden["softmax"]
    if expected.shape != softmax.shape:
        raise quicknet_model.ArchiveError(f"golden softmax has shape {expected.shape}; the model's is {softmax.shape}")
    largest = np.abs(softmax - expected).max(1)
    found = {
        "golden_accuracy": float((expected.argmax(1) == classes).mean()),
        "golden_agreement": float((expected.argmax(1) == softmax.argmax(1)).mean()),
        "golden_median_difference": float(np.median(largest)),
        "golden_largest_difference": float(largest.max()),
    }
    if found["golden_agreement"] < GOLDEN_AGREEMENT or found["golden_median_difference"] > GOLDEN_MEDIAN:
        raise quicknet_model.ArchiveError(
            f"the rebuilt network is not the one that computed the golden outputs: {found}; accepted are an agreement "
            f"of at least {GOLDEN_AGREEMENT} and a median difference of at most {GOLDEN_MEDIAN}"
        )
    return found


# ---- The experiment -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A way of clipping: `choose` takes the numbers of the calibration photos; None leaves the model plain."""

    name: str
    choose: Callable[[NDArray[np.int64]], measure.Steps] | None
    splits: int
    calibrated: bool = True
    percentile: float | None = None  # of clip_model's step="auto", where that is what the variant measures


class Experiment:
    """One network, photos and their classes; every choice of steps is run once, on all photos."""

    def __init__(self, model: keras.Model, inputs: NDArray[np.float32], classes: NDArray[np.int64]):
        self.model, self.inputs, self.classes = model, inputs, classes
        self.layers = [layer.name for layer in binary_layers(model)]
        self.plain = measure.run(model, inputs)
        self.clipped = measure.Clipped(model)
        self._runs: dict[measure.Steps, measure.Run] = {}

    def run(self, steps: measure.Steps) -> measure.Run:
        """The clipped model's run on all photos."""
        if not steps:
            return self.plain
        if steps not in self._runs:
            self._runs[steps] = self.clipped.run(steps, self.inputs)
        return self._runs[steps]

    def variants(self, splits: int, sequential_splits: int) -> list[Variant]:
        """All variants measured."""
        counted = measure.histograms(self.model, self.inputs)

        def fixed(step):
            return lambda photos: (step,) * len(self.layers)

        def by(rule):
            return lambda photos: counted.choose(photos, rule)

        def sequential(rule):
            return lambda photos: self.clipped.sequential(self.inputs[photos], rule)

        covering = measure.smallest_covering
        return [
            Variant("plain", None, splits, calibrated=False),
            *(Variant(f"step {step}", fixed(step), splits, calibrated=False) for step in (1, 2, 4, 8)),
            *(Variant(f"both sides {p}", by(covering(p)), splits) for p in PERCENTILES),
            *(Variant(f"sequential {p}", sequential(covering(p)), sequential_splits) for p in PERCENTILES[1:3]),
            Variant("least squares", by(measure.least_squares), splits),
            Variant("least squares of relu", by(measure.least_squares_relu), splits),
            *(Variant(f"auto {p}", by(measure.as_clip_model(p)), splits, percentile=p) for p in PERCENTILES[1:3]),
        ]

    def check_auto(self, variant: Variant, photos: NDArray[np.int64]) -> None:
        """The steps of an "auto" variant are those that clip_model chooses.

        Raises:
            RuntimeError: where they are not.
        """
        if variant.percentile is None or variant.choose is None:
            return
        chosen = measure.one_pass(self.model, self.inputs[photos], variant.percentile)
        if chosen != (expected := variant.choose(photos)):
            raise RuntimeError(f"{variant.name}: clip_model chose the steps {chosen}, the experiment {expected}")

    def measure(self, variant: Variant, splits: list[NDArray[np.int64]]) -> dict[str, object]:
        """Figures of a variant; `splits` holds the numbers of the calibration photos of each split."""
        splits = splits[: variant.splits]
        self.check_auto(variant, splits[0])
        steps = [variant.choose(photos) if variant.choose else () for photos in splits]
        runs = [self.run(chosen) for chosen in steps]
        everything = np.arange(len(self.classes))
        others = [np.setdiff1d(everything, photos) for photos in splits]
        flipped = np.mean([run.flipped(self.plain).mean(0) for run in runs], axis=0)
        saturated = np.mean([run.saturated for run in runs], axis=0)
        return {
            "variant": variant.name,
            "splits": len(splits),
            "calibration_images": len(splits[0]) if variant.calibrated else 0,
            "images": len(others[0]),
            **self._accuracy(runs, others, ""),
            "images_all": len(everything),
            **self._accuracy(runs, [everything] * len(runs), "_all"),
            "flipped_signs": _by_layer(self.layers, flipped),
            "saturated": _by_layer(self.layers, saturated) if variant.choose else None,
            "steps": [
                {"steps": list(chosen), "splits": times} for chosen, times in Counter(steps).most_common() if chosen
            ],
        }

    def _accuracy(self, runs: list[measure.Run], photos: list[NDArray[np.int64]], suffix: str) -> dict[str, float]:
        plain = self.plain
        figures = {
            "accuracy": [(run.predictions() == self.classes)[own].mean() for run, own in zip(runs, photos)],
            "agreement": [(run.predictions() == plain.predictions())[own].mean() for run, own in zip(runs, photos)],
            "softmax_distance": [
                np.abs(run.softmax - plain.softmax).sum(1)[own].mean() for run, own in zip(runs, photos)
            ],
        }
        found = {}
        for name, each in figures.items():
            found[f"{name}{suffix}"] = round(float(np.mean(each)), 4)
            found[f"{name}{suffix}_spread"] = round(float(np.std(each)), 4)
        return found


def _by_layer(layers: list[str], shares: NDArray[np.float64]) -> dict[str, float]:
    return {name: float(f"{share:.4g}") for name, share in zip(layers, shares)}


def random_splits(photos: int, calibration: int, splits: int, seed: int) -> list[NDArray[np.int64]]:
    """The numbers of the calibration photos of each split.

    Raises:
        ValueError: where no photo would be left to judge.
    """
    if not 0 < calibration < photos:
        raise ValueError(f"{calibration} photos for calibration, of {photos}; accepted are 1 to {photos - 1}")
    rng = np.random.default_rng(seed)
    return [np.sort(rng.permutation(photos)[:calibration]) for _ in range(splits)]


# ---- Recording ------------------------------------------------------------------------------------------------------


def write_chart(results: list[dict], path: Path) -> None:
    """Flipped signs per layer, one line a variant."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    drawn = [result for result in results if result["variant"].startswith(("step", "both", "auto"))]
    colours = pyplot.get_cmap("tab10").colors
    for result, colour in zip(drawn, colours):
        flipped = result["flipped_signs"]
        style = {"step": "--", "both": ":", "auto": "-"}[result["variant"].split()[0]]
        label = f"{result['variant']} (agreement {result['agreement_all']:.0%})"
        axes.plot(
            list(flipped), [100 * share for share in flipped.values()], style, marker="o", ms=3, c=colour, label=label
        )
    save_flips_chart(
        figure, axes, f"Pretrained QuickNet, clipped without retraining, {results[0]['images_all']} photos", path
    )
    pyplot.close(figure)


def measure_all(experiment: Experiment, splits: list[NDArray[np.int64]], sequential_splits: int) -> list[dict]:
    """The figures of all variants, each with what it was measured on."""
    described = machine.describe()
    date = described.pop("date")
    results = []
    start = time.monotonic()
    variants = experiment.variants(len(splits), sequential_splits)
    for number, variant in enumerate(variants, 1):
        figures = experiment.measure(variant, splits)
        own = {"experiment": CLIP, "model": experiment.model.name, "dataset": "ImageNet sample"}
        results.append({**own, **figures, "machine": described, "date": date, "command": COMMAND})
        spent = time.monotonic() - start
        print(f"{number}/{len(variants)} {variant.name}: {spent:.0f} s", flush=True)
    return results


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line; weights, photos and golden outputs have no default, as they are not part of the project."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="npz archive; quicknet_model.py says of what")
    parser.add_argument("--photos", type=Path, required=True, help="zip of PNG files named CLASS_anything.png")
    parser.add_argument("--golden", type=Path, required=True, help="npz archive: names, y and softmax per photo")
    parser.add_argument("--splits", type=int, default=10, help="random splits (default 10)")
    parser.add_argument("--sequential-splits", type=int, default=3, help="of them, for the slow variants (default 3)")
    parser.add_argument("--calibration", type=int, default=20, help="photos to choose steps on (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RECORD)
    parser.add_argument("--chart", type=Path, default=RESULTS / "quicknet_flips.png")
    options = parser.parse_args(arguments)
    if options.splits < 1 or options.sequential_splits < 1:
        parser.error("--splits and --sequential-splits must be at least 1")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure all variants and write the results."""
    options = parse(arguments)
    try:
        weights = quicknet_model.load_weights(options.weights)
        names, photos, classes = quicknet_model.load_photos(options.photos)
        golden = quicknet_model.load_arrays(options.golden, ("names", "y", "softmax"))
        splits = random_splits(len(photos), options.calibration, options.splits, options.seed)
        model = quicknet_model.build(weights, photos.shape[1:3])
        experiment = Experiment(model, quicknet_model.normalize(photos), classes)
        against_golden = compare_golden(names, classes, experiment.plain.softmax, golden)
    except (OSError, ValueError) as error:
        sys.exit(f"quicknet.py: {error}")
    print(f"against the golden outputs: {against_golden}", flush=True)
    results = measure_all(experiment, splits, options.sequential_splits)
    results[0].update(against_golden)
    replace_rows(options.output, CLIP, results)
    write_chart(results, options.chart)
    print(clip_table(results))


if __name__ == "__main__":
    main()
