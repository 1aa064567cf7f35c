"""The demo's training: two stages in one `model.fit`, and what it records."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from larq_clip._keras import keras, tf
from larq_clip.callbacks import TwoStageClipping

BATCH = 64
LEARNING_RATES = (3e-3, 2e-3)
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Stages:
    """Epochs without and with clipping."""

    unclipped: int
    clipped: int

    @property
    def total(self) -> int:
        return self.unclipped + self.clipped


class CosineWithRestart(keras.callbacks.Callback):
    """Learning rate of each batch: a half cosine from `LEARNING_RATES` to a hundredth of it, one per stage.

    rate(p) = start * max(0.01, (1 + cos(pi p)) / 2), with p the share of the stage that is over.
    """

    def __init__(self, stages: Stages):
        super().__init__()
        self.stages = stages
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        second = self.epoch >= self.stages.unclipped
        epochs = self.stages.clipped if second else self.stages.unclipped
        over = self.epoch - (self.stages.unclipped if second else 0) + batch / self.params["steps"]
        share = max(LEAST_SHARE, (1 + math.cos(math.pi * over / epochs)) / 2)
        keras.backend.set_value(self.model.optimizer.learning_rate, LEARNING_RATES[second] * share)


class ShowProgress(keras.callbacks.Callback):
    """A progress bar over all batches, on a terminal, and a line per epoch, everywhere."""

    def __init__(self, console: Console, stages: Stages):
        super().__init__()
        self.console = console
        self.stages = stages
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("batches"))
        self.progress = Progress(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal or console.quiet,
        )

    def on_train_begin(self, logs=None):
        self.task = self.progress.add_task("training", total=self.stages.total * self.params["steps"])
        self.progress.start()

    def on_train_batch_end(self, batch, logs=None):
        self.progress.advance(self.task)

    def on_epoch_end(self, epoch, logs=None):
        stage = "clipped  " if epoch >= self.stages.unclipped else "unclipped"
        self.console.print(
            f"  epoch {epoch + 1:2d}/{self.stages.total}  {stage}  training: loss {logs['loss']:.3f}, "
            f"{logs['accuracy']:.1%}  test: loss {logs['val_loss']:.3f}, {logs['val_accuracy']:.1%}",
            highlight=False,
            soft_wrap=True,
        )

    def close(self) -> None:
        """Remove the bar, also after an interruption."""
        self.progress.stop()


def flipped_batches(images: NDArray[np.float32], labels: NDArray[np.uint8], seed: int) -> tf.data.Dataset:
    """Shuffled batches in which every image is mirrored, left to right, with probability 1/2."""

    def flip(x, y):
        mirrored = tf.random.uniform((tf.shape(x)[0], 1, 1, 1), seed=seed) < 0.5
        return tf.where(mirrored, tf.reverse(x, [2]), x), y

    batches = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=seed).batch(BATCH)
    return batches.map(flip).prefetch(2)


def train(
    model: keras.Model,
    train_set: tuple[NDArray[np.float32], NDArray[np.uint8]],
    test_set: tuple[NDArray[np.float32], NDArray[np.uint8]],
    stages: Stages,
    seed: int,
    console: Console,
) -> dict[str, list[float]]:
    """Train a clipped model, first with the clip off, then on.

    The test set is evaluated after every epoch, for the curves; nothing is chosen by it.

    Returns:
        Keras' history: name to one value per epoch; among them loss, accuracy, val_loss, val_accuracy and, for every
        clipped layer, its share of saturated accumulators (NaN in stage 1).
    """
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATES[0]),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
    )
    progress = ShowProgress(console, stages)
    try:
        history = model.fit(
            flipped_batches(*train_set, seed),
            epochs=stages.total,
            validation_data=test_set,
            validation_batch_size=500,
            callbacks=[TwoStageClipping(clip_from_epoch=stages.unclipped), CosineWithRestart(stages), progress],
            verbose=0,
        )
    finally:
        progress.close()
    return {name: [float(value) for value in values] for name, values in history.history.items()}
