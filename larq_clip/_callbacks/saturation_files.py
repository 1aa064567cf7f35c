"""What `SaturationMonitor` writes: a CSV table, pictures, TensorBoard summaries."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from larq_clip._keras import tf
from larq_clip.files import atomic_write

if TYPE_CHECKING:
    from larq_clip._callbacks.saturation_monitor import LayerHistograms

COLUMNS = (
    "epoch",
    "layer",
    "tensor",
    "norm",
    "enabled",
    "bits",
    "step",
    "limit",
    "elements",
    "not_finite",
    "beyond",
    "share_beyond",
    "minimum",
    "maximum",
    "mean",
    "deviation",
    "left",
    "width",
)
LOG_SCALE_LIMITS = (1e-5, 2.0)


class SaturationTable:
    """The CSV file, whole at any time: it is written anew, with all earlier rows, after each measurement."""

    def __init__(self, path: Path, bins: int):
        self.path, self.bins = path, bins
        self.header = [*COLUMNS, *(f"count_{i}" for i in range(bins))]
        self.rows: list[list[str]] = []

    def start_at(self, epoch: int) -> None:
        """Keep the rows of the epochs before; see `SaturationMonitor`."""
        self.rows = []
        if not self.path.exists():
            return
        with self.path.open(newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        if header != self.header or any(len(row) != len(header) for row in rows):
            raise ValueError(
                f"{self.path} is not a table of SaturationMonitor with {self.bins} bins, or is damaged; give the path "
                "of a new file as csv, or the same number of bins as before"
            )
        epochs = [int(row[0]) for row in rows]
        if epochs and max(epochs) > epoch:
            raise ValueError(
                f"{self.path} holds epochs up to {max(epochs)}, but training starts at epoch {epoch}, so they are "
                "another training's; give the path of a new file as csv, or delete this one"
            )
        self.rows = [row for row, known in zip(rows, epochs) if known < epoch]

    def append(self, epoch: int, measured: Sequence[LayerHistograms]) -> None:
        """Add one epoch's rows and write the file."""
        for layer in measured:
            for tensor, histogram in layer.tensors():
                bounded = tensor != "normalized"
                bins = histogram.bins(self.bins)
                row = [
                    epoch,
                    layer.path,
                    tensor,
                    layer.norm or "",
                    int(layer.clip.enabled),
                    layer.clip.bits,
                    layer.clip.step,
                    layer.clip.largest,
                    histogram.elements,
                    histogram.not_finite,
                    histogram.beyond if bounded else "",
                    histogram.share_beyond if bounded else "",
                    histogram.minimum,
                    histogram.maximum,
                    histogram.mean,
                    histogram.deviation,
                    bins.left,
                    bins.width,
                    *bins.counts.tolist(),
                ]
                self.rows.append([str(value) for value in row])
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        atomic_write(self.path, text.getvalue().encode())


def draw(path: Path, epoch: int, measured: Sequence[LayerHistograms], bins: int) -> None:
    """One picture, PNG: a row for each layer, its tensors as histograms on a logarithmic scale of shares."""
    # A figure of its own canvas: pyplot would choose a backend for the whole process and keep the figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 0.7 + 2.1 * len(measured)
    figure = Figure(figsize=(11, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(measured), 3, squeeze=False)
    figure.subplots_adjust(left=0.05, right=0.98, bottom=0.3 / height, top=1 - 0.7 / height, hspace=0.4, wspace=0.15)
    for row, layer in zip(axes, measured):
        for axis in row:
            axis.set_visible(False)
        for axis, (tensor, histogram) in zip(row, layer.tensors()):
            axis.set_visible(True)
            _draw_one(axis, layer, tensor, histogram, bins)
    figure.suptitle(
        f"epoch {epoch}: share of values; accumulators, behind the clip, behind the batch norm", fontsize=10
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=80)
    atomic_write(path, picture.getvalue())


def _draw_one(axis: Any, layer: LayerHistograms, tensor: str, histogram: Any, bins: int) -> None:
    found = histogram.bins(bins)
    color = "tab:red" if tensor == "normalized" else "tab:green"  # as in the paper
    axis.stairs(found.counts / max(1, histogram.elements), found.edges, fill=True, color=color)
    axis.set_yscale("log")
    axis.set_ylim(*LOG_SCALE_LIMITS)
    axis.tick_params(labelsize=7)
    limit = layer.clip.largest
    bound = limit if tensor != "normalized" else 0
    filled = np.flatnonzero(found.counts)
    right = found.edges[filled[-1] + 1] if filled.size else 0.0
    margin = found.width / 2
    axis.set_xlim(min(found.left, -bound) - margin, max(right, bound) + margin)
    titles = {
        "accumulator": f"{layer.path}: {histogram.share_beyond:.2%} beyond ±{limit}",
        "clipped": f"clip {'on' if layer.clip.enabled else 'off'}: {layer.clip.bits} bits, step {layer.clip.step}",
        "normalized": f"{layer.norm}: {histogram.minimum:.2f} to {histogram.maximum:.2f}",
    }
    axis.set_title(titles[tensor], fontsize=8)
    for edge in {-bound, bound} - {0}:
        axis.axvline(edge, color="black", linestyle="--", linewidth=0.8)


def write_summaries(writer: Any, epoch: int, measured: Sequence[LayerHistograms], bins: int) -> None:
    """TensorBoard's histograms, from all counts and not from a sample of values, and one scalar per layer."""
    plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="histograms")
    metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
    with writer.as_default(step=epoch):
        for layer in measured:
            tf.summary.scalar(f"{layer.path}/share_beyond", layer.accumulator.share_beyond)
            for tensor, histogram in layer.tensors():
                found = histogram.bins(bins)
                table = np.stack([found.edges[:-1], found.edges[1:], found.counts], axis=1)
                tf.summary.write(f"{layer.path}/{tensor}", table, metadata=metadata)
    writer.flush()
