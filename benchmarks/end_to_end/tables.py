"""The tables and the chart of the end-to-end results, from benchmarks/results/end_to_end.json.

    python benchmarks/end_to_end/tables.py

Rewrites what stands between the markers ``<!-- end_to_end -->`` in benchmarks/README.md and in the project's README.md,
and end_to_end.png beside the results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from readme_tables import replace_table  # noqa: E402

RESULTS = ROOT / "benchmarks/results/end_to_end.json"
CHART = RESULTS.with_name("end_to_end.png")
READMES = (ROOT / "benchmarks/README.md", ROOT / "README.md")
MARKER = "end_to_end"
LABELS = {
    ("larq_clip", "integer"): "larq_clip, integer",
    ("larq_clip", "plain"): "larq_clip, plain",
    ("larq-compute-engine", "binary"): "LCE",
    ("litert", "float32"): "LiteRT float32",
    ("litert", "int8"): "LiteRT int8",
    ("onnxruntime", "float32"): "ONNX Runtime float32",
    ("onnxruntime", "int8"): "ONNX Runtime int8",
}

Records = list[dict[str, Any]]


def cell(record: dict[str, Any] | None) -> str:
    """Milliseconds and, of others than the reference, the ratio."""
    if record is None:
        return "–"
    ratio = record["ratio_to_larq_clip_integer"]
    reference = (record["engine"], record["precision"]) == ("larq_clip", "integer")
    return f"{record['median_ms']:.2f} ms" + ("" if reference else f" ({ratio:.1f}×)")


def table(records: Records) -> str:
    """A row for each network and number of threads, a column for each engine and precision, and how it was measured."""
    found = {(r["model"], r["threads"], r["engine"], r["precision"]): r for r in records}
    columns = [key for key in LABELS if any(key == (r["engine"], r["precision"]) for r in records)]
    lines = [
        "| network | threads | " + " | ".join(LABELS[key] for key in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for model, threads in dict.fromkeys((r["model"], r["threads"]) for r in records):
        cells = [cell(found.get((model, threads, *key))) for key in columns]
        lines.append(f"| {model} | {threads} | " + " | ".join(cells) + " |")
    first = records[0]
    versions: dict[str, str] = {}
    for record in records:
        versions |= record["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    measured = (
        f"Median of {first['rounds']} interleaved runs of one image, in brackets the median ratio to larq_clip, "
        f"integer, in the same round; {first['date']}, {first['machine']['cpu']}, {first['machine']['cores']} cores; "
        f"{listed}. LCE is made for ARM and not optimized for x86."
    )
    return "\n".join([*lines, "", measured])


def draw(records: Records, path: Path) -> None:
    """Times with one thread by network, on a logarithmic axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    single = [r for r in records if r["threads"] == 1]
    models = list(dict.fromkeys(r["model"] for r in single))
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    keys = [key for key in LABELS if any(key == (r["engine"], r["precision"]) for r in single)]
    width = 0.8 / max(1, len(keys))
    for i, key in enumerate(keys):
        rows = [r for r in single if (r["engine"], r["precision"]) == key]
        places = [models.index(r["model"]) + (i - len(keys) / 2) * width for r in rows]
        axes.bar(places, [r["median_ms"] for r in rows], width, label=LABELS[key])
    axes.set_yscale("log")
    axes.set_xticks(range(len(models)), models, fontsize=8)
    axes.set_ylabel("milliseconds, one thread")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Rewrite both READMEs and the chart."""
    records = json.loads(RESULTS.read_text())
    new = table(records)
    for path in READMES:
        path.write_text(replace_table(path.read_text(encoding="utf-8"), MARKER, new, path), encoding="utf-8")
    draw(records, CHART)


if __name__ == "__main__":
    main()
