"""Histograms of what goes into the clips, what comes out, and what the batch norm behind makes of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from larq_clip._calibration import observe
from larq_clip._callbacks.graph import ACTIVATIONS, WITHIN_RANGE, Consumers, clipped_layers
from larq_clip._callbacks.histogram import Histogram
from larq_clip._callbacks.saturation_files import SaturationTable, draw, write_summaries
from larq_clip._keras import keras, tf
from larq_clip.files import write_target
from larq_clip.models import require_clips
from larq_clip.quantizers import AccumulatorClip

LARGEST_BINS = 1024
# Batch norm outputs are of order 1; the plots show them in far wider bins.
NORM_GRID = 2.0**-8


class LayerHistograms(NamedTuple):
    """One layer's data flow on the samples: before the clip, behind it, behind the batch norm that follows (if any)."""

    path: str
    clip: AccumulatorClip
    accumulator: Histogram
    clipped: Histogram
    norm: str | None
    normalized: Histogram | None

    def tensors(self) -> Iterator[tuple[str, Histogram]]:
        """The histograms that there are, by the name of their tensor."""
        yield "accumulator", self.accumulator
        yield "clipped", self.clipped
        if self.normalized is not None:
            yield "normalized", self.normalized


def measure(model: keras.Model, samples: Any) -> list[LayerHistograms]:
    """Run a clipped model over samples, in inference mode, and count what flows through each clip.

    `normalized` is the output of the batch norm that follows the clipped layer, straight or through pools, activations
    and layers that only move, drop or pad; a layer without one, and every layer of a subclassed model, has None. Values
    of a layer that runs several times, in several places say, are counted together.

    Args:
        model: has clips, switched on or off.
        samples: as `calibration_data` of `larq_clip.models.clip_model`.

    Raises:
        TypeError, ValueError: where the model has no clip, or the samples do not fit it.
    """
    require_clips(model)
    consumers = Consumers(model)
    found: list[LayerHistograms] = []
    hooks: list[tuple[Any, Histogram | None, Histogram | None]] = []
    for path, layer, clip in clipped_layers(model):
        norm = consumers.norm_behind(layer, WITHIN_RANGE + ACTIVATIONS)
        own = LayerHistograms(
            path,
            clip,
            Histogram(1, clip.largest),
            Histogram(1 if clip.step >= 1 else clip.step, clip.largest),
            None if norm is None else norm.name,
            None if norm is None else Histogram(NORM_GRID),
        )
        found.append(own)
        hooks.append((clip, own.accumulator, own.clipped))
        if norm is not None:
            hooks.append((norm, None, own.normalized))
    with contextlib.ExitStack() as stack:
        for layer, before, after in hooks:
            stack.enter_context(_counting(layer, before, after))
        observe(model, samples, "samples")
    return found


@contextlib.contextmanager
def _counting(layer: Any, before: Histogram | None, after: Histogram | None) -> Iterator[None]:
    """Count a layer's inputs and outputs while the block runs."""
    original = layer.call

    def call(inputs, *args, **kwargs):
        outputs = original(inputs, *args, **kwargs)
        for histogram, tensor in ((before, inputs), (after, outputs)):
            if histogram is not None:
                # Inside functions of Keras' own (TimeDistributed, say) there are no values yet.
                tf.numpy_function(histogram.add, [tensor], [])
        return outputs

    layer.call = call
    try:
        yield
    finally:
        layer.call = original


class SaturationMonitor(keras.callbacks.Callback):
    """Watches, on fixed samples, the range of every clipped layer: the paper's Fig. 2, while the model trains.

    At the end of every `every`-th epoch the model runs over `samples` in inference mode, and for each clipped layer
    three histograms are made: of its accumulators, of what leaves the clip, and of what leaves the batch norm that
    follows (straight, or through pools and the like). In stage 1, with the clip off, the second equals the first; the
    share of accumulators beyond the range says what the clip is going to cut off. Training is not touched: its weights
    are the same, bit for bit, as without the monitor.

    - `csv`: one row for each epoch, layer and tensor: epoch, layer, tensor ("accumulator", "clipped" or "normalized"),
      norm, enabled, bits, step, limit, elements, not_finite, beyond, share_beyond (|value| > limit; empty for
      "normalized"), minimum, maximum, mean, deviation, left, width, count_0, count_1, ...: bin i holds the values from
      left + i width up to left + (i + 1) width.
    - `plots`: a folder, made if missing, for one picture per epoch, epoch-0001.png (the first epoch is 0), ...: a row
      per layer, the range as dashed lines, the share beyond in the title.
    - `log_dir`: TensorBoard's histograms "<layer>/accumulator", ... and the scalar "<layer>/share_beyond".

    With several workers (`tf.distribute`) all of them need this callback with the same samples, since all measure
    together; the chief alone writes.

    CSV and plots are written through a temporary file and a rename, so they are whole at any time. Training that
    resumes at an epoch continues the CSV file: rows of that epoch, written before the interruption, are replaced; rows
    of later epochs are another training's, and refused.

    !!! example
        ```python
        monitor = larq_clip.callbacks.SaturationMonitor(x[:256], every=5, csv="saturation.csv", plots="saturation")
        model.fit(x, y, epochs=60, callbacks=[larq_clip.callbacks.TwoStageClipping(40), monitor])
        ```

    # Arguments
        samples: inputs to run the model on, as `calibration_data` of `larq_clip.models.clip_model`: an array, a dict of
            arrays by input name, or an iterable of batches that can be gone through again and again. A few hundred
            images are enough.
        every: epochs between two measurements, from 1.
        log_dir: folder for TensorBoard.
        csv: file for the table; its folder must exist.
        plots: folder for the pictures; its parent folder must exist.
        bins: number of bins, 2 to 1,024.

    # Raises
        TypeError: for samples of no accepted kind, or that can be gone through only once.
        ValueError: for other values; where no output is asked for; at the start of training where the model has no
            `AccumulatorClip`; where the CSV file is not one of this monitor with these bins, or holds later epochs.
        OSError: where an output cannot be written.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", Fig. 2 and section 3.3.
    """

    def __init__(
        self,
        samples: Any,
        *,
        every: int = 1,
        log_dir: str | os.PathLike | None = None,
        csv: str | os.PathLike | None = None,
        plots: str | os.PathLike | None = None,
        bins: int = 64,
    ):
        super().__init__()
        for name, value, lowest, highest in (("every", every, 1, 10**9), ("bins", bins, 2, LARGEST_BINS)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not lowest <= value <= highest:
                raise ValueError(f"{name} is {value!r}; accepted are the integers from {lowest} to {highest}")
        if log_dir is None and csv is None and plots is None:
            raise ValueError("no output is asked for; give at least one of log_dir, csv and plots")
        if samples is None or hasattr(samples, "__next__"):
            raise TypeError(
                f"samples is of type {type(samples).__name__}; accepted is what can be gone through again and again: "
                "an array, a dict of arrays, a list of batches, a tf.data.Dataset or a keras.utils.Sequence"
            )
        self.samples, self.every, self.bins = samples, int(every), int(bins)
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.plots = None if plots is None else _folder(Path(plots))
        self._table = None if csv is None else SaturationTable(write_target(Path(csv)), self.bins)
        self._started = False
        self._writer: Any = None

    def on_train_begin(self, logs=None):
        require_clips(self.model)
        self._started = False

    def on_epoch_begin(self, epoch, logs=None):
        if not self._started and self._table is not None:
            self._table.start_at(epoch)
        self._started = True

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every:
            return
        # With several workers all of them must run the model, since reading its statistics synchronizes them.
        measured = measure(self.model, self.samples)
        if not self.model.distribute_strategy.extended.should_save_summary:
            return
        if self._table is not None:
            self._table.append(epoch, measured)
        if self.plots is not None:
            draw(self.plots / f"epoch-{epoch:04d}.png", epoch, measured, self.bins)
        if self.log_dir is not None:
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self.log_dir))
            write_summaries(self._writer, epoch, measured, self.bins)

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _folder(path: Path) -> Path:
    """Make a folder, or say now that there can be none."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"cannot write plots into {path}: it is a file; give the path of a folder")
    if not path.exists():
        write_target(path).mkdir(exist_ok=True)  # of several workers another one may have been faster
    write_target(path / "epoch")
    return path


__all__ = ["LayerHistograms", "SaturationMonitor", "measure"]
