"""One of two processes that train together: run by tests/larq_clip/test_distribute.py, which compares what they find.

Usage: worker.py FOLDER, with TF_CONFIG. Writes FOLDER/worker-<index>.json and .npz.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from network import build, compile_model, data, formats

from larq_clip import callbacks, models
from larq_clip._keras import keras, tf

STRATEGY = tf.distribute.MultiWorkerMirroredStrategy(
    communication_options=tf.distribute.experimental.CommunicationOptions(timeout_seconds=120)
)
INDEX = STRATEGY.cluster_resolver.task_id
FOLDER = Path(sys.argv[1])
# What the metric that ends stage 1 is on each worker: only the chief's has a plateau.
METRIC = [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]][INDEX]


class OwnMetric(keras.callbacks.Callback):
    """A metric that the workers do not agree on; and whether the clips are on in each step."""

    def __init__(self):
        super().__init__()
        self.switches = []

    def on_train_batch_begin(self, batch, logs=None):
        self.switches.append([clip.enabled for clip in models.accumulator_clips(self.model).values()])

    def on_epoch_end(self, epoch, logs=None):
        logs["cost"] = METRIC[epoch]


def main():
    # Each worker has data of its own, and not as much as the other.
    calibration, _ = data(24 - 8 * INDEX, seed=INDEX)
    with STRATEGY.scope():
        model = models.clip_model(build(), bits=5, step="auto", calibration_data=calibration)
        steps = {name: clip.step for name, clip in models.accumulator_clips(model).items()}
        compile_model(model)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = tf.data.Dataset.from_tensor_slices(data(16, seed=10 + INDEX)).batch(16).repeat().with_options(options)
    own = OwnMetric()
    history = model.fit(
        dataset,
        steps_per_epoch=2,
        epochs=3,
        verbose=0,
        validation_data=dataset,
        validation_steps=1,
        callbacks=[
            own,
            callbacks.TwoStageClipping(monitor="cost", mode="min", patience=1),
            callbacks.SaturationMonitor(data(4)[0], csv=FOLDER / f"saturation-{INDEX}.csv", every=3),
            keras.callbacks.BackupAndRestore(str(FOLDER / "backup")),
        ],
    )
    del history.history["cost"]
    quantized = models.quantize_model(model, calibration)
    failure = ""
    try:
        models.quantize_model(model, calibration[: 8 * (1 - INDEX)])
    except (RuntimeError, ValueError) as error:
        failure = f"{type(error).__name__}: {error}"
    np.savez(FOLDER / f"worker-{INDEX}.npz", *model.get_weights(), *quantized.get_weights())
    found = {
        "steps": steps,
        "switches": own.switches,
        "history": history.history,
        "formats": formats(quantized),
        "failure": failure,
    }
    (FOLDER / f"worker-{INDEX}.json").write_text(json.dumps(found))


main()
