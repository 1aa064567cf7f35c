"""The recorded rows of QuickNet, and the tables in README.md that are made of them.

    python benchmarks/accuracy/quicknet_tables.py

writes benchmarks/results/quicknet.json into the README, between the markers <!-- NAME --> and <!-- /NAME -->.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from readme_tables import replace_table  # noqa: E402

README = Path(__file__).parent / "README.md"
RECORD = Path(__file__).parent.parent / "results" / "quicknet.json"
CLIP = "clip a pretrained model"
QUANTIZE = "quantize a pretrained model"


# ---- Rows -----------------------------------------------------------------------------------------------------------


def read_rows(path: Path, experiment: str | None = None) -> list[dict]:
    """The rows of a file, of one experiment or of all; none where the file is absent."""
    rows = json.loads(path.read_text()) if path.is_file() else []
    return [row for row in rows if experiment in (None, row["experiment"])]


def replace_rows(path: Path, experiment: str, rows: list[dict]) -> None:
    """Write the rows of an experiment, keeping those of others, which stay in front."""
    kept = [row for row in read_rows(path) if row["experiment"] != experiment]
    path.write_text(json.dumps(kept + rows, indent=1) + "\n")


def save_flips_chart(figure: Any, axes: Any, title: str, path: Path) -> None:
    """What the charts of flipped signs share: labels, legend, file."""
    axes.set_ylabel("signs that differ from the plain model's, %")
    axes.set_xlabel("binary convolution, signs of its input")
    axes.tick_params(axis="x", rotation=45)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


# ---- Tables ---------------------------------------------------------------------------------------------------------


def clip_table(rows: list[dict]) -> str:
    """What clips cost."""
    lines = [
        "| variant | top-1, % | agreement, % | softmax distance | flipped in the last layer, % | usual steps, layer by "
        "layer |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = [
            f"{scale * row[name]:.{digits}f} ± {scale * row[f'{name}_spread']:.{digits}f}"
            for name, scale, digits in (("accuracy", 100, 1), ("agreement", 100, 1), ("softmax_distance", 1, 3))
        ]
        last = 100 * list(row["flipped_signs"].values())[-1]
        steps = " ".join(map(str, row["steps"][0]["steps"])) if row["steps"] else ""
        lines.append(f"| {row['variant']} | {' | '.join(figures)} | {last:.1f} | {steps} |")
    return "\n".join(lines)


def quantize_table(rows: list[dict]) -> str:
    """What each ingredient of the integer program brings."""
    lines = [
        "| variant | top-1, % | top-5, % | agreement with plain, % | agreement with clip only, % | softmax distance | "
        "flipped, mean of layers, % | flipped, second / last layer, % | SNR of the last sum, dB | exact |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        flipped = [100 * share for share in row["flipped_signs"].values()]
        cells = [
            row["variant"],
            f"{100 * row['accuracy']:.0f}",
            f"{100 * row['top5']:.0f}",
            f"{100 * row['agreement_versions']:.1f}",
            f"{100 * row['agreement_clipped']:.1f}",
            f"{row['softmax_distance']:.3f}",
            f"{sum(flipped) / len(flipped):.1f}",
            f"{flipped[1]:.1f} / {flipped[-1]:.1f}",
            _last_sum(row),
            {True: "yes", False: "NO", None: ""}[row.get("exact")],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _last_sum(row: dict) -> str:
    sums = [layer for layer in row.get("report", []) if layer["kind"] == "Add"]
    return f"{sums[-1]['snr_db']:.1f}" if sums else ""


TABLES: dict[str, tuple[str, Callable[[list[dict]], str]]] = {
    "clip table": (CLIP, clip_table),
    "quantize table": (QUANTIZE, quantize_table),
}


def with_tables(text: str, record: Path = RECORD) -> str:
    """A text with all tables as the record has them.

    Raises:
        ValueError: where the markers of a table are not there exactly once.
    """
    for name, (experiment, table) in TABLES.items():
        text = replace_table(text, name, table(read_rows(record, experiment)), "the README")
    return text


def main() -> None:
    """Bring the README up to date."""
    README.write_text(with_tables(README.read_text()))


if __name__ == "__main__":
    main()
