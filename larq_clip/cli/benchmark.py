"""`larq-clip benchmark`: the time of a .lcb file on this machine, layer by layer."""

from __future__ import annotations

import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from larq_clip._native import ISAS
from larq_clip.cli.text import layers_in_words
from larq_clip.files import atomic_write, write_target
from larq_clip.interpreter import Interpreter

CHARTS = (".png", ".svg", ".html")
MAC_KINDS = ("binary_macs", "int8_macs", "float_macs")


def measure(model: Path, *, threads: int = 1, isa: str = "auto", repeat: int = 50, warmup: int = 3) -> dict[str, Any]:
    """Run one random image `repeat` times.

    The latency is that of an interpreter which measures no ops, the times of the ops come from a second one; runs of
    both alternate, so that what else the machine does meets both.

    Returns:
        "milliseconds" (median, whole network), "milliseconds_min", "first_milliseconds" (from opening the file to the
        first result), and "ops": of each op its layers, kernel, MACs, "milliseconds" (median), "percent" of their sum
        and "gmacs" (10^9 multiply-accumulates a second, None without any).

    Raises:
        ModelFileError, RuntimeLibraryError, OSError: as `larq_clip.Interpreter`.
    """
    plain = Interpreter(model, num_threads=threads, isa=isa)
    profiled = Interpreter(model, num_threads=threads, isa=isa, profile=True)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(1, *info.shape)).astype(np.float32) for info in plain.inputs]
    images = inputs if len(inputs) > 1 else inputs[0]
    start = time.perf_counter()
    Interpreter(model, num_threads=threads, isa=isa).predict(images)
    first = time.perf_counter() - start
    seconds, nanoseconds = [], []
    for run in range(warmup + repeat):
        start = time.perf_counter()
        plain.predict(images)
        elapsed = time.perf_counter() - start
        profiled.predict(images)
        if run >= warmup:
            seconds.append(elapsed)
            nanoseconds.append([op.nanoseconds for op in profiled.ops()])
    medians = np.median(np.array(nanoseconds, np.float64), axis=0)
    total = max(float(medians.sum()), 1.0)
    return {
        "model": str(model),
        "isa": plain.isa,
        "threads": threads,
        "runs": repeat,
        "session_bytes": plain.session_bytes,
        "milliseconds": 1e3 * statistics.median(seconds),
        "milliseconds_min": 1e3 * min(seconds),
        "first_milliseconds": 1e3 * first,
        "ops": [_describe(op, float(time_ns), total) for op, time_ns in zip(profiled.ops(), medians, strict=True)],
    }


def _describe(op: Any, nanoseconds: float, total: float) -> dict[str, Any]:
    macs = sum(getattr(op, kind) for kind in MAC_KINDS)
    return {
        "name": op.name,
        "type": op.type,
        "kernel": op.kernel,
        **{kind: getattr(op, kind) for kind in MAC_KINDS},
        "milliseconds": nanoseconds / 1e6,
        "percent": 100 * nanoseconds / total,
        "gmacs": macs / nanoseconds if macs and nanoseconds else None,
    }


def draw(report: dict[str, Any], format: str) -> bytes:
    """The ops as bars, one below the other, longest times visible at once; `format` is "png", "svg" or "html"."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ops = report["ops"]
    figure = Figure(figsize=(10, 1.2 + 0.22 * len(ops)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    kernels = list(dict.fromkeys(op["kernel"] for op in ops))
    for i, kernel in enumerate(kernels):
        rows = [row for row, op in enumerate(ops) if op["kernel"] == kernel]
        axes.barh(rows, [ops[row]["milliseconds"] for row in rows], color=f"C{i % 10}", label=kernel)
    axes.set_yticks(range(len(ops)), [_shorten(op["name"]) for op in ops], fontsize=6)
    axes.set_ylim(len(ops) - 0.5, -0.5)
    axes.set_xlabel("milliseconds, median")
    axes.set_title(
        f"{Path(report['model']).name}: {report['milliseconds']:.3f} ms, {report['isa']}, {_threads(report)}",
        fontsize=9,
    )
    axes.legend(fontsize=6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png" if format == "png" else "svg", dpi=150)
    if format != "html":
        return buffer.getvalue()
    svg = buffer.getvalue().decode()
    page = f'<!doctype html><meta charset="utf-8"><title>larq-clip benchmark</title>\n{svg[svg.index("<svg") :]}'
    return page.encode()


def _shorten(name: str, length: int = 40) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _threads(report: dict[str, Any]) -> str:
    return f"{report['threads']} thread{'s' if report['threads'] > 1 else ''}"


def _print_table(report: dict[str, Any]) -> None:
    click.echo(
        f"{report['milliseconds']:.3f} ms (median of {report['runs']}; fastest {report['milliseconds_min']:.3f} ms; "
        f"first result after {report['first_milliseconds']:.3f} ms; {report['isa']}, {_threads(report)})"
    )
    click.echo(f"{'ms':>10} {'%':>6} {'GMAC/s':>9}  {'kernel':24} layers")
    for op in report["ops"]:
        gmacs = "" if op["gmacs"] is None else f"{op['gmacs']:.1f}"
        layers = layers_in_words(op["name"])
        click.echo(f"{op['milliseconds']:10.4f} {op['percent']:6.1f} {gmacs:>9}  {op['kernel']:24} {layers}")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--repeat", type=click.IntRange(1), default=50, show_default=True, help="Runs that count.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--isa", type=click.Choice(ISAS), default="auto", show_default=True, help="Instruction set.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--chart", type=click.Path(path_type=Path), help="Draw the layers' times: .png, .svg or .html.")
def benchmark(model: Path, repeat: int, threads: int, isa: str, as_json: bool, chart: Path | None) -> None:
    """Measure MODEL (.lcb) on one random image: latency, and for every layer ms, %, GMAC/s and kernel."""
    if chart is not None:
        if chart.suffix not in CHARTS:
            raise ValueError(f"--chart is {chart}; accepted are files ending in {', '.join(CHARTS)}")
        write_target(chart)
    report = measure(model, threads=threads, isa=isa, repeat=repeat)
    if chart is not None:
        atomic_write(chart, draw(report, chart.suffix[1:]))
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print_table(report)
