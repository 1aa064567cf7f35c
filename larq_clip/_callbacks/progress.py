"""What callbacks must know when interrupted training resumes, kept in the model's checkpoints."""

from __future__ import annotations

import json
from typing import Any

from larq_clip._keras import keras, tf


class Progress(tf.train.experimental.PythonState):
    """State of a callback: one JSON string in every checkpoint of the model.

    While training runs it is a dependency of the model, an object and not a variable, so the model has no weight more.
    `keras.callbacks.BackupAndRestore` therefore saves it in the same file as weights, optimizer and epoch, and the four
    cannot contradict each other, whenever the process is killed.

    Attributes:
        NAME: of the dependency.
        initial_rates: learning rates that training began with, where they are needed.
        restored: whether a checkpoint was read since `track`.
    """

    NAME = ""

    def __init__(self):
        super().__init__()
        self.initial_rates: list[float] | None = None
        self.restored = False

    def to_json(self) -> dict[str, Any]:
        """What to save."""
        return {"rates": self.initial_rates}

    def from_json(self, saved: dict[str, Any]) -> None:
        """Take over what was saved."""
        self.initial_rates = saved["rates"]

    def serialize(self) -> str:
        return json.dumps(self.to_json())

    def deserialize(self, string_value) -> None:
        self.from_json(json.loads(string_value))
        self.restored = True

    def forget_from(self, epoch: int) -> None:
        """Training is about to run this epoch: what was known of it, and of later ones, is void."""
        if epoch == 0:
            self.initial_rates = None

    def track(self, model: keras.Model) -> None:
        """Be in the model's checkpoints. Where one was read before, this restores; else reading one later does."""
        self.restored = False
        model._track_trackable(self, self.NAME, overwrite=True)

    def untrack(self, model: keras.Model) -> None:
        """Leave no trace in the model."""
        model._delete_tracking(self.NAME)


__all__ = ["Progress"]
