"""The tables and the charts of the end-to-end results, from benchmarks/results/end_to_end.json.

    python benchmarks/end_to_end/tables.py

Rewrites what stands between the markers ``<!-- end_to_end -->`` in the project's README.md and in benchmarks/README.md,
between ``<!-- end_to_end:memory -->`` in the latter, and end_to_end.png and end_to_end_memory.png beside the results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from readme_tables import replace_table  # noqa: E402

RESULTS = ROOT / "benchmarks/results/end_to_end.json"
CHARTS = RESULTS.with_name("end_to_end.png"), RESULTS.with_name("end_to_end_memory.png")
MARKER, MEMORY_MARKER = "end_to_end", "end_to_end:memory"
# Each with the tables that it holds.
READMES = {
    ROOT / "README.md": (MARKER,),
    ROOT / "benchmarks/README.md": (MARKER, MEMORY_MARKER),
}
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


def time_cell(record: dict[str, Any] | None) -> str:
    """Milliseconds and, of others than the reference, the ratio."""
    if record is None or record["median_ms"] is None:
        return "–"
    ratio = record["ratio_to_larq_clip_integer"]
    reference = (record["engine"], record["precision"]) == ("larq_clip", "integer")
    return f"{record['median_ms']:.2f} ms" + ("" if reference else f" ({ratio:.1f}×)")


def memory_cell(record: dict[str, Any] | None) -> str:
    """Megabytes of the file and of memory at the peak, and how many steady runs the first result takes."""
    if record is None or record["median_ms"] is None:
        return "–"
    opening = record["open_to_first_result_ms"] / record["median_ms"]
    return f"{record['file_bytes'] / 1e6:.2f} MB, {record['peak_rss_bytes'] / 1e6:.1f} MB, {opening:.1f}×"


def columns_of(records: Records) -> list[tuple[str, str]]:
    """Engines and precisions that were measured at all."""
    measured = {(r["engine"], r["precision"]) for r in records if r["median_ms"] is not None}
    return [key for key in LABELS if key in measured]


def rows(records: Records, cell: Callable[[dict[str, Any] | None], str]) -> list[str]:
    """A row for each network and number of threads, a column for each engine and precision."""
    found = {(r["model"], r["threads"], r["engine"], r["precision"]): r for r in records}
    columns = columns_of(records)
    lines = [
        "| network | threads | " + " | ".join(LABELS[key] for key in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for model, threads in dict.fromkeys((r["model"], r["threads"]) for r in records):
        cells = [cell(found.get((model, threads, *key))) for key in columns]
        lines.append(f"| {model} | {threads} | " + " | ".join(cells) + " |")
    return lines


def time_table(records: Records) -> str:
    """Latencies, and how they were measured."""
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
    return "\n".join([*rows(records, time_cell), "", measured])


def memory_table(records: Records) -> str:
    """With one thread: file, memory at the peak, and the first result's time by that of a steady one."""
    single = [r for r in records if r["threads"] == 1]
    explained = "File, peak memory above the engine's without a model, first result in times of a steady run."
    return "\n".join([*rows(single, memory_cell), "", explained])


TABLES = {MARKER: time_table, MEMORY_MARKER: memory_table}


def draw(records: Records, panels: list[tuple[str, Callable[[dict[str, Any]], float]]], path: Path) -> None:
    """Bars by network on logarithmic axes, one panel below the other: its label, and the number of a record."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(r["model"] for r in records))
    figure = Figure(figsize=(9, 3.4 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    keys = columns_of(records)
    width = 0.8 / max(1, len(keys))
    for axes, (label, number) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        for i, key in enumerate(keys):
            bars = [r for r in records if (r["engine"], r["precision"]) == key and r["median_ms"] is not None]
            places = [models.index(r["model"]) + (i - (len(keys) - 1) / 2) * width for r in bars]
            axes.bar(places, [number(r) for r in bars], width, label=LABELS[key])
        axes.set_yscale("log")
        axes.set_xticks(range(len(models)), models, fontsize=8)
        axes.set_ylabel(label)
    figure.axes[0].legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(path, dpi=150)


def of_threads(records: Records, threads: int) -> Callable[[dict[str, Any]], float]:
    """Milliseconds with another number of threads, of the subject that a record is about."""
    found = {(r["model"], r["engine"], r["precision"]): r["median_ms"] for r in records if r["threads"] == threads}
    return lambda r: found[r["model"], r["engine"], r["precision"]]


def main() -> None:
    """Rewrite both READMEs and the charts."""
    records = json.loads(RESULTS.read_text())
    for path, markers in READMES.items():
        text = path.read_text(encoding="utf-8")
        for marker in markers:
            text = replace_table(text, marker, TABLES[marker](records), path)
        path.write_text(text, encoding="utf-8")
    threads = sorted({r["threads"] for r in records})
    times = [(f"milliseconds, {n} thread{'s' * (n > 1)}", of_threads(records, n)) for n in threads]
    sizes = [
        ("file, MB", lambda r: r["file_bytes"] / 1e6),
        ("peak memory, MB", lambda r: r["peak_rss_bytes"] / 1e6),
        ("first result, ms", lambda r: r["open_to_first_result_ms"]),
    ]
    single = [r for r in records if r["threads"] == threads[0]]
    draw(single, times, CHARTS[0])
    draw(single, sizes, CHARTS[1])


if __name__ == "__main__":
    main()
