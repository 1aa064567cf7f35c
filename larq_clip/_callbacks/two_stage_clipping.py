"""Training without clips first, then with them."""

from __future__ import annotations

import math
import warnings
from typing import Any

from larq_clip._callbacks.arguments import integer_from, number
from larq_clip._callbacks.learning_rate import RateRestart
from larq_clip._callbacks.progress import Progress
from larq_clip._distribution import Workers
from larq_clip._keras import keras
from larq_clip.models import require_clips
from larq_clip.quantizers import AccumulatorClip

# What the names of Keras' own metrics end in. Where a name says nothing, the user has to.
RISING = ("acc", "accuracy", "auc", "precision", "recall", "f1_score", "iou")
FALLING = ("loss", "error", "entropy", "divergence", "hinge")


class _Progress(Progress):
    """What the stage of later epochs depends on."""

    NAME = "larq_clip_two_stage_clipping"

    def __init__(self):
        super().__init__()
        self.values: dict[int, float | None] = {}  # of the monitored metric, by epoch of stage 1
        self.clipped_from: int | None = None  # first epoch of stage 2, once a plateau has decided it

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "values": list(self.values.items()), "clipped_from": self.clipped_from}

    def from_json(self, saved: dict[str, Any]) -> None:
        super().from_json(saved)
        self.values, self.clipped_from = dict(saved["values"]), saved["clipped_from"]

    def forget_from(self, epoch: int) -> None:
        super().forget_from(epoch)
        self.values = {known: value for known, value in self.values.items() if known < epoch}
        if self.clipped_from is not None and self.clipped_from > epoch:
            self.clipped_from = None


class TwoStageClipping(keras.callbacks.Callback):
    """Trains without clipping at first (stage 1), then with it (stage 2). The switch is an epoch, a plateau, or both.

    By epoch: stage 2 begins with epoch `clip_from_epoch`. By plateau: it begins with the epoch after `patience` epochs
    in a row in which `monitor` did not improve on its best value by more than `min_delta`; where `clip_from_epoch` is
    given too, it begins with that epoch at the latest.

    At the end of each epoch of stage 2 the logs get, for each clipped layer, the share of its accumulators in that
    epoch's training steps that were beyond the range, as "<layer>_saturation" ("<outer>/<layer>_saturation" in nested
    models). These get no gradient, so a large share is a dead zone; a larger step makes it smaller. In stage 1 the
    value is NaN, so that every epoch has the same keys: History and CSVLogger then show one column per layer.
    Callbacks see the keys if they come after this one in the list; Keras' own History always does.

    Under `tf.distribute` the shares are those of all replicas together, and with several workers all go by the chief's
    value of `monitor`, so that they switch at the same step. Each of them needs this callback.

    Validation during an epoch runs in the stage of that epoch. After training the model stays in the stage of the last
    epoch. Nothing is retraced at the switch.

    Interrupted training that BackupAndRestore resumes, or that starts at `initial_epoch`, continues in the right stage:
    by epoch, since the number of the epoch is all that counts; by plateau, since the values seen so far, and the
    learning rate that training began with, are part of each checkpoint that is saved during training. So
    BackupAndRestore must come after this callback in the list. Weights in TensorFlow's format that ModelCheckpoint
    saved, and ``model.load_weights`` read, carry them, too; .h5 files do not.

    The learning rate can be restarted as stage 2 begins: set to `restart_learning_rate`, or to `restart_factor` times
    the rate that stage 1 began with. From there on it is up to other callbacks: ReduceLROnPlateau goes on from the
    restarted rate; a LearningRateScheduler sets a rate of its own in every epoch, and the later one in the list wins.

    !!! example
        ```python
        model.fit(x, y, epochs=60, callbacks=[larq_clip.callbacks.TwoStageClipping(clip_from_epoch=40)])
        model.fit(
            x, y, epochs=90, validation_split=0.1,
            callbacks=[
                larq_clip.callbacks.TwoStageClipping(60, monitor="val_loss", patience=5, restart_factor=0.5),
                tf.keras.callbacks.BackupAndRestore("backup"),
            ],
        )
        ```

    # Arguments
        clip_from_epoch: number of the first clipped epoch, counted from 0, so also the number of epochs without; with
            0 all epochs are clipped. With `monitor` the latest such epoch; None for no limit.
        monitor: name of the metric to watch, as in the logs of `fit`: "loss", "val_accuracy", ...
        patience: epochs in a row without improvement that end stage 1, from 1.
        min_delta: what counts as an improvement: more than this.
        mode: "min" or "max": what is better; "auto" goes by the metric's name.
        restart_learning_rate: learning rate that stage 2 begins with.
        restart_factor: the same, as a multiple of the rate at the beginning of training. A new fit with
            `initial_epoch` and no restored state takes the optimizer's rate at that time.

    # Raises
        ValueError: for other values; at the start of training where the model has no `AccumulatorClip`, or the learning
            rate is to be restarted and is a LearningRateSchedule; after the first epoch where `monitor` is not in the
            logs, or BackupAndRestore comes before this callback.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3.3: training procedure.
    """

    _clips: dict[str, AccumulatorClip]
    _ran_an_epoch: bool

    def __init__(
        self,
        clip_from_epoch: int | None = None,
        *,
        monitor: str | None = None,
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str = "auto",
        restart_learning_rate: float | None = None,
        restart_factor: float | None = None,
    ):
        super().__init__()
        if monitor is not None and (not isinstance(monitor, str) or not monitor):
            raise ValueError(f"monitor is {monitor!r}; accepted are names of metrics, such as 'val_loss'")
        if clip_from_epoch is not None or monitor is None:
            clip_from_epoch = integer_from("clip_from_epoch", clip_from_epoch, 0, " (or None, with monitor)")
        self.clip_from_epoch = clip_from_epoch
        self.monitor = monitor
        self.patience = integer_from("patience", patience, 1)
        self.min_delta = number("min_delta", min_delta, positive=False)
        self.mode = None if monitor is None else _direction(monitor, mode)
        self.restart = RateRestart(restart_learning_rate, restart_factor)
        self._clips = {}
        self._ran_an_epoch = False
        self._missing_was_said = False
        self._progress = _Progress()

    # ---- What Keras calls --------------------------------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        self._clips = require_clips(self.model)
        self._ran_an_epoch = self._missing_was_said = False
        self.restart.check(self.model)
        if self.monitor is not None or self.restart.factor is not None:
            self._progress.track(self.model)
        if self.monitor is None and not self._is_clipped(self.params["epochs"] - 1):
            self._warn_never_clipped()

    def on_epoch_begin(self, epoch, logs=None):
        if not self._ran_an_epoch:
            self._start_at(epoch)
        self._ran_an_epoch = True
        self._backup = self._last_backup()
        if self._first_clipped == epoch:
            self.restart.apply(self.model, self._progress.initial_rates)
        self._switch(self._is_clipped(epoch))
        for clip in self._clips.values():
            clip.reset_saturation()

    def on_epoch_end(self, epoch, logs=None):
        clipped = self._is_clipped(epoch)
        if self.monitor is not None:
            self._refuse_early_backup()
            if not clipped:
                self._observe(epoch, self.monitor, logs or {})
        if logs is not None:
            for name, clip in self._clips.items():
                logs[f"{name}_saturation"] = clip.saturation() if clipped else float("nan")

    def on_train_end(self, logs=None):
        last = self.params["epochs"] - 1
        # Resumed after its last epoch, training ends without another one.
        if not self._ran_an_epoch:
            self._progress.forget_from(last + 1)
            self._switch(self._is_clipped(last))
        if self.monitor is not None and not any(clip.enabled for clip in self._clips.values()):
            self._warn_never_clipped()
        self._progress.untrack(self.model)

    # ---- Stages ------------------------------------------------------------------------------------------------------

    @property
    def _first_clipped(self) -> int | None:
        """First epoch of stage 2, as far as it is known."""
        known = [first for first in (self.clip_from_epoch, self._progress.clipped_from) if first is not None]
        return min(known, default=None)

    def _is_clipped(self, epoch: int) -> bool:
        return self._first_clipped is not None and epoch >= self._first_clipped

    def _switch(self, enabled: bool) -> None:
        for clip in self._clips.values():
            clip.enabled = enabled

    def _start_at(self, epoch: int) -> None:
        """Bring what is known into line with the epoch at which training starts, or starts again."""
        self._progress.forget_from(epoch)
        self._progress.initial_rates = self.restart.initial_rates(self.model, self._progress.initial_rates)
        if self.monitor is None or self._is_clipped(epoch):
            return
        if unknown := [e for e in range(epoch) if e not in self._progress.values]:
            warnings.warn(
                f"training starts at epoch {epoch}, but the values of '{self.monitor}' in {len(unknown)} of the epochs "
                f"before, the last of them {unknown[-1]}, are unknown, since no checkpoint holds them; they do not "
                "count for the plateau that ends stage 1",
                stacklevel=2,
            )
        self._decide(epoch)

    def _observe(self, epoch: int, monitor: str, logs: dict[str, Any]) -> None:
        """Keep the epoch's value, and begin stage 2 with the next epoch if that makes a plateau."""
        value = logs.get(monitor)
        # Of several workers all go by the chief's value, so that they switch at the same epoch.
        known, chief = Workers(self.model).gather([value is not None, math.nan if value is None else float(value)])[0]
        if not known:
            self._say_missing(epoch, monitor, list(logs))
        self._progress.values[epoch] = float(chief) if known else None
        self._decide(epoch + 1)

    def _decide(self, next_epoch: int) -> None:
        best, waited = math.inf, 0
        for _, value in sorted(self._progress.values.items()):
            if value is None:
                continue
            cost = -value if self.mode == "max" else value
            if cost < best - self.min_delta:  # never for NaN
                best, waited = cost, 0
            else:
                waited += 1
            if waited >= self.patience:
                self._progress.clipped_from = next_epoch
                return

    def _say_missing(self, epoch: int, monitor: str, names: list[str]) -> None:
        found = f"'{monitor}' is not in the logs of epoch {epoch}, which are {names}"
        # Without any validation result there may be one later: fit has validation_freq.
        if not monitor.startswith("val_") or any(name.startswith("val_") for name in names):
            raise ValueError(f"monitor: {found}; name one of these, or compile the model with the metric")
        if not self._missing_was_said:
            self._missing_was_said = True
            warnings.warn(
                f"{found}: has fit no validation_data? Epochs without it do not count for the plateau", stacklevel=2
            )

    def _warn_never_clipped(self) -> None:
        epochs = self.params["epochs"]
        reason = f"clips from epoch {self.clip_from_epoch} on (counted from 0)"
        if self.monitor is not None:
            reason = f"waits for {self.patience} epochs without improvement of '{self.monitor}'"
            if self.clip_from_epoch is not None:
                reason += f", or for epoch {self.clip_from_epoch}"
        warnings.warn(
            f"stage 2 is never reached: fit ends after {epochs} epochs, and TwoStageClipping {reason}; the model stays "
            "unclipped",
            stacklevel=2,
        )

    # ---- Order of callbacks ------------------------------------------------------------------------------------------

    def _last_backup(self) -> str | None:
        """Path of BackupAndRestore's last checkpoint, where that saves once per epoch."""
        training_state = getattr(self.model, "_training_state", None)
        if training_state is None or training_state._save_freq != "epoch":
            return None
        return training_state.write_checkpoint_manager.latest_checkpoint

    def _refuse_early_backup(self) -> None:
        """The backup of this epoch must hold this epoch's value, so it must not have been written yet."""
        if self._last_backup() != self._backup:
            raise ValueError(
                "BackupAndRestore comes before TwoStageClipping in the list of callbacks, so its backups lack the last "
                f"epoch's '{self.monitor}' and training could not be resumed exactly; put BackupAndRestore last"
            )


def _direction(monitor: str, mode: str) -> str:
    if mode in ("min", "max"):
        return mode
    if mode != "auto":
        raise ValueError(f"mode is {mode!r}; accepted are 'min', 'max' and 'auto'")
    for endings, direction in ((RISING, "max"), (FALLING, "min")):
        if monitor.lower().endswith(endings):
            return direction
    raise ValueError(f"mode='auto' cannot tell whether more of '{monitor}' is better; give mode='min' or mode='max'")


__all__ = ["TwoStageClipping"]
