"""What the demo shows and keeps: the table, the curves, the description of the machine."""

from __future__ import annotations

import io
import os
import platform
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from larq_clip._machine import processor_name

Report = dict[str, Any]

TRAIN_COLOR, TEST_COLOR = "#8a8f98", "#0b5fa5"
LAYER_COLORS = ("#b2452d", "#c78a1b", "#3f7d4e", "#6b4fa0", "#3b3b3b")


def describe_machine() -> dict[str, Any]:
    """Processor, its architecture, number of cores and operating system."""
    return {
        "processor": processor_name() or "unknown",
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def print_table(console: Console, report: Report) -> None:
    """The demo's one table: accuracies, equality, sizes, latencies, saturation."""
    table = Table(title="larq_clip demo", show_header=False, title_justify="left")
    table.add_column("what", no_wrap=True)
    table.add_column("value", justify="right", overflow="fold")
    images = f"{report['test_images']:,}"
    table.add_row("accuracy after stage 1, not clipped", _percent(report["stage1_accuracy"]))
    table.add_row("accuracy after stage 2, clipped to 8 bits", _percent(report["stage2_accuracy"]))
    table.add_row(f"accuracy on the runtime ({report['isa']})", _percent(report["runtime_accuracy"]), end_section=True)
    table.add_row("predictions that differ from Keras: runtime", f"{report['differing_predictions']} of {images}")
    table.add_row("  largest difference of a probability", f"{report['largest_difference']:.1e}")
    if report["neon_skipped_reason"] is None:
        table.add_row("the same: NEON build under qemu", f"{report['neon_differing_predictions']} of {images}")
        table.add_row("  largest difference of a probability", f"{report['neon_largest_difference']:.1e}")
    else:
        table.add_row("the same: NEON build under qemu", f"not run: {report['neon_skipped_reason']}")
    table.add_section()
    table.add_row("file size, model.lcb", f"{report['file_bytes']:,} bytes")
    ratio = report["float32_bytes"] / report["file_bytes"]
    table.add_row(f"weights as float32, {ratio:.1f} times as many", f"{report['float32_bytes']:,} bytes")
    table.add_section()
    cores = report["machine"]["cores"]
    table.add_row(f"latency per image: Keras, batch 1, {cores} cores", f"{report['keras_ms_per_image']:.3f} ms")
    table.add_row("latency per image: runtime, 1 thread", f"{report['runtime_ms_per_image']:.3f} ms")
    table.add_section()
    for layer, share in report["saturation"].items():
        table.add_row(f"saturated accumulators, last epoch: {layer}", _percent(share))
    console.print(table)


def draw_curves(report: Report) -> bytes:
    """PNG of three panels over the epochs: accuracy, loss, share of saturated accumulators per layer."""
    history, unclipped = report["history"], report["epochs"]["unclipped"]
    epochs = range(1, len(history["loss"]) + 1)
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    accuracy, loss, saturation = figure.subplots(1, 3)
    for axes, key, title in ((accuracy, "accuracy", "Accuracy, %"), (loss, "loss", "Loss (cross-entropy)")):
        factor = 100 if key == "accuracy" else 1
        axes.plot(epochs, [factor * v for v in history[key]], color=TRAIN_COLOR, label="training")
        axes.plot(epochs, [factor * v for v in history[f"val_{key}"]], color=TEST_COLOR, marker=".", label="test")
        axes.set_title(title, loc="left")
        axes.legend(frameon=False, loc="lower right" if key == "accuracy" else "upper right")
    for i, (layer, values) in enumerate(report["saturation_history"].items()):
        shares = [None if v is None else 100 * v for v in values]
        stage2 = [(epoch, share) for epoch, share in zip(epochs, shares, strict=True) if share is not None]
        saturation.plot(*zip(*stage2, strict=True), color=LAYER_COLORS[i % len(LAYER_COLORS)], marker=".", label=layer)
    saturation.set_title("Accumulators beyond ±127, %", loc="left")
    saturation.set_ylim(bottom=0)
    saturation.legend(frameon=False, loc="upper left")
    for axes in (accuracy, loss, saturation):
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.axvspan(unclipped + 0.5, len(epochs) + 0.5, color="#000000", alpha=0.05, linewidth=0)
        axes.text(
            unclipped + 0.6, 1.0, "clipped", transform=axes.get_xaxis_transform(), va="top", fontsize="small", alpha=0.7
        )
    figure.suptitle(
        f"Two-stage training: {100 * report['stage1_accuracy']:.2f} % without, {100 * report['stage2_accuracy']:.2f} % "
        f"with accumulators clipped to 8 bits; {report['differing_predictions']} of {report['test_images']:,} "
        "predictions of the runtime differ from Keras",
        x=0.01,
        ha="left",
        fontsize="medium",
    )
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=130)
    return png.getvalue()
