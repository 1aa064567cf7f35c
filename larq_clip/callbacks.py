"""Training in two stages: first without, then with clipped accumulators, inside one ``model.fit``."""

from __future__ import annotations

import warnings

import numpy as np

from larq_clip._keras import keras
from larq_clip.models import require_clips
from larq_clip.quantizers import AccumulatorClip


class TwoStageClipping(keras.callbacks.Callback):
    """Trains without clipping before epoch `clip_from_epoch` (stage 1) and with it from then on (stage 2).

    At the end of each epoch of stage 2 the logs get, for each clipped layer, the share of its accumulators in that
    epoch's training steps that were beyond the range, as "<layer>_saturation" ("<outer>/<layer>_saturation" in nested
    models). These get no gradient, so a large share is a dead zone; a larger step makes it smaller. In stage 1 the
    value is NaN, so that every epoch has the same keys: History and CSVLogger then show one column per layer.
    Callbacks see the keys if they come after this one in the list; Keras' own History always does.

    Validation during an epoch runs in the stage of that epoch. After training the model stays in the stage of the last
    epoch. Which stage an epoch belongs to depends on its number alone, so training that BackupAndRestore resumes, or
    that starts at `initial_epoch`, continues in the right stage. Nothing is retraced at the switch.

    !!! example
        ```python
        model.fit(x, y, epochs=60, callbacks=[larq_clip.callbacks.TwoStageClipping(clip_from_epoch=40)])
        ```

    # Arguments
        clip_from_epoch: number of the first clipped epoch, counted from 0, so also the number of epochs without; with
            0 all epochs are clipped.

    # Raises
        ValueError: for another value, and at the start of training where the model has no `AccumulatorClip`.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3.3: training procedure.
    """

    clip_from_epoch: int
    _clips: dict[str, AccumulatorClip]
    _ran_an_epoch: bool

    def __init__(self, clip_from_epoch: int):
        super().__init__()
        if (
            isinstance(clip_from_epoch, bool)
            or not isinstance(clip_from_epoch, (int, np.integer))
            or clip_from_epoch < 0
        ):
            raise ValueError(f"clip_from_epoch is {clip_from_epoch!r}; accepted are integers from 0")
        self.clip_from_epoch = int(clip_from_epoch)
        self._clips = {}
        self._ran_an_epoch = False

    def on_train_begin(self, logs=None):
        self._clips = require_clips(self.model)
        self._ran_an_epoch = False
        if not self._is_clipped(self.params["epochs"] - 1):
            warnings.warn(
                f"stage 2 is never reached: fit ends after {self.params['epochs']} epochs, and TwoStageClipping clips "
                f"from epoch {self.clip_from_epoch} on (counted from 0); the model stays unclipped",
                stacklevel=2,
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._ran_an_epoch = True
        self._switch(self._is_clipped(epoch))
        for clip in self._clips.values():
            clip.reset_saturation()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            clipped = self._is_clipped(epoch)
            for name, clip in self._clips.items():
                logs[f"{name}_saturation"] = clip.saturation() if clipped else float("nan")

    def on_train_end(self, logs=None):
        # Resumed after its last epoch, training ends without another one.
        if not self._ran_an_epoch:
            self._switch(self._is_clipped(self.params["epochs"] - 1))

    def _is_clipped(self, epoch: int) -> bool:
        return epoch >= self.clip_from_epoch

    def _switch(self, enabled: bool) -> None:
        for clip in self._clips.values():
            clip.enabled = enabled


__all__ = ["TwoStageClipping"]
