"""The tables and plots of the trained experiments, from benchmarks/results/accuracy.json.

    python benchmarks/accuracy/accuracy_tables.py

Rewrites what stands between the markers ``<!-- accuracy:... -->`` in benchmarks/accuracy/README.md and in the project's
README.md, and the plots accuracy_*.png beside the results.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from readme_tables import replace_table  # noqa: E402

RESULTS = ROOT / "benchmarks/results/accuracy.json"
# Each with the tables that it holds.
READMES = {
    Path(__file__).parent / "README.md": ("main", "recipes", "ablations"),
    ROOT / "README.md": ("main",),
}

Records = list[dict[str, Any]]

CLIPS = {"clip1": "step 1", "clip2": "step 2", "auto_untrained": "auto"}
ABLATIONS = (
    ("clip1", "step 1, two stages"),
    ("no_stage1_clip1", "step 1 from the start, no stage 1"),
    ("saturating@clip1", "step 1, partial sums saturate"),
    ("saturating@clip2", "step 2, partial sums saturate"),
    ("integer@clip1", "step 1, integer (int8 per channel, sign before rounding)"),
    ("integer_residual16@clip1", "step 1, integer, residual of 16 bits"),
    ("integer_tensor@clip1", "step 1, integer, one format per tensor"),
    ("integer_paper@clip1", "step 1, integer, Algorithm 2's variables"),
    ("sign_after@clip1", "step 1, integer, sign after rounding"),
    ("bn_iterative@clip1", "step 1, integer, batch norms one after another, trained"),
    ("bn_at_once@clip1", "step 1, integer, batch norms at once, trained"),
)


def of(records: Records, experiment: str, variant: str) -> dict[int, float]:
    """Accuracy in per cent by seed."""
    return {
        r["seed"]: 100 * r["accuracy"] for r in records if r["experiment"] == experiment and r["variant"] == variant
    }


def cell(values: Iterable[float]) -> str:
    """Mean and standard deviation over seeds."""
    found = list(values)
    if not found:
        return "–"
    spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.1f}{spread}"


def gain(values: dict[int, float], reference: dict[int, float]) -> str:
    """Mean and standard error of the difference, seed by seed."""
    found = [values[seed] - reference[seed] for seed in values if seed in reference]
    if not found:
        return "–"
    error = f" ± {statistics.stdev(found) / len(found) ** 0.5:.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):+.1f}{error}".replace("-", "−")


def experiments(records: Records) -> list[str]:
    return list(dict.fromkeys(r["experiment"] for r in records))


def main_table(records: Records) -> str:
    """A row for each network and clip: accuracies of all columns, and what integer is against stage 1."""
    lines = [
        "| network | seeds | stage 1 | control | clip | clipped | batch norm | integer | C runtime | clipped − stage 1 "
        "| integer − stage 1 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for experiment in experiments(records):
        first = of(records, experiment, "stage1")
        for i, (clip, title) in enumerate(CLIPS.items()):
            clipped = of(records, experiment, clip)
            if not clipped:
                continue
            integer = of(records, experiment, f"integer@{clip}")
            lead = [experiment, str(len(first)), cell(first.values())] if i == 0 else ["", "", ""]
            control = cell(of(records, experiment, "stage1_continued").values()) if i == 0 else ""
            rest = [of(records, experiment, f"{kind}@{clip}") for kind in ("bn", "integer", "runtime")]
            row = [*lead, control, title, cell(clipped.values()), *(cell(r.values()) for r in rest)]
            lines.append("| " + " | ".join([*row, gain(clipped, first), gain(integer, first)]) + " |")
    return "\n".join(lines)


def recipe_table(records: Records) -> str:
    """What was trained: images, epochs, width, binary products of the widest layer, machine."""
    lines = ["| experiment | width | images | epochs, stage 1 + 2 | test images | date |", "|---|---|---|---|---|---|"]
    for experiment in experiments(records):
        mine = {r["variant"]: r for r in records if r["experiment"] == experiment}
        one, two = mine["stage1"], mine.get("clip1", {})
        epochs = f"{one['epochs']} + {two.get('epochs', '–')}"
        lines.append(
            f"| {experiment} | {one['width']} | {one['images']} | {epochs} | {one['test_images']} | {one['date']} |"
        )
    return "\n".join(lines)


def ablation_table(records: Records) -> str:
    """A row for each ablation, a column for each experiment: the difference to stage 1, seed by seed."""
    names = experiments(records)
    lines = ["| variant | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for variant, title in ABLATIONS:
        found = [gain(of(records, name, variant), of(records, name, "stage1")) for name in names]
        if any(text != "–" for text in found):
            lines.append(f"| {title} | " + " | ".join(found) + " |")
    return "\n".join(lines)


TABLES = {"main": main_table, "recipes": recipe_table, "ablations": ablation_table}


def render(path: Path, records: Records) -> str:
    """A README with its tables made anew.

    Raises:
        ValueError: where a marker is missing.
    """
    text = path.read_text()
    for name in READMES[path]:
        text = replace_table(text, f"accuracy:{name}", TABLES[name](records), path)
    return text


def plot(records: Records) -> None:
    """Training loss by epoch through both stages (as Fig. 7), and test accuracy by variant, a dot for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = experiments(records)
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.4), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names):
        mine = [r for r in records if r["experiment"] == name and "curve" in r]
        length = max(len(r["curve"]) for r in mine if r["variant"] == "stage1")
        for variant, colour in (("stage1", "C0"), ("stage1_continued", "C7"), ("clip1", "C3"), ("clip2", "C2")):
            for i, r in enumerate(r for r in mine if r["variant"] == variant):
                start = 1 if variant == "stage1" else length + 1
                epochs = range(start, start + len(r["curve"]))
                axis.plot(epochs, [p[0] for p in r["curve"]], f"{colour}.-", label=None if i else variant)
        axis.axvline(length + 0.5, color="0.8", zorder=0)
        axis.set(title=name, xlabel="epoch", ylabel="training loss")
        axis.legend(frameon=False)
    figure.savefig(RESULTS.with_name("accuracy_curves.png"), dpi=110)
    plt.close(figure)

    variants = ["stage1", "stage1_continued", "clip1", "integer@clip1", "clip2", "integer@clip2", "auto_untrained"]
    variants.append("integer@auto_untrained")
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.8), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names):
        for x, variant in enumerate(variants):
            values = of(records, name, variant)
            axis.plot([x] * len(values), list(values.values()), "C0o" if "@" not in variant else "C3o", alpha=0.7)
        axis.set_xticks(range(len(variants)), variants, rotation=60, ha="right")
        axis.set(title=name, ylabel="test accuracy, %")
    figure.savefig(RESULTS.with_name("accuracy_variants.png"), dpi=110)
    plt.close(figure)


def main() -> None:
    records = json.loads(RESULTS.read_text())
    for path in READMES:
        path.write_text(render(path, records))
    plot(records)
    print(f"{len(records)} records in the tables and plots")


if __name__ == "__main__":
    sys.exit(main())
