"""TwoStageClipping by plateau, its learning-rate restart, and what survives an interruption of either."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from larq_clip._keras import keras, lq, tf
from larq_clip.callbacks import TwoStageClipping
from larq_clip.models import accumulator_clips, clip_model

NAME = "larq_clip_two_stage_clipping"


def build(optimizer=None):
    keras.utils.set_random_seed(3)
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    layers = [
        keras.layers.InputLayer((12,)),
        lq.layers.QuantDense(8, name="dense", use_bias=False, **binary),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dense(3, activation="softmax", name="last"),
    ]
    model = clip_model(keras.Sequential(layers), bits=3)
    optimizer = optimizer if optimizer is not None else keras.optimizers.SGD(0.5)
    model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
    return model


X = np.random.default_rng(0).standard_normal((8, 12)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 8)


class Scripted(keras.callbacks.Callback):
    """Puts given values of a metric into the logs, records what each epoch is like, interrupts at will."""

    def __init__(self, values, name="score", interrupt_at=None):
        super().__init__()
        self.values, self.name, self.interrupt_at = values, name, interrupt_at
        self.stages, self.rates = {}, {}

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if epoch == self.interrupt_at:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch, logs=None):
        (self.stages[self.epoch],) = {clip.enabled for clip in accumulator_clips(self.model).values()}
        if "learning_rate" in self.model.optimizer.get_config():
            self.rates[self.epoch] = float(self.model.optimizer.learning_rate)

    def on_epoch_end(self, epoch, logs=None):
        if epoch < len(self.values) and self.values[epoch] is not None:
            logs[self.name] = self.values[epoch]


def fit(callback, values, *, model=None, epochs=None, name="score", backup=None, interrupt_at=None, extra=(), **more):
    """Train; the scripted metric comes first in the list, a backup last."""
    model = model or build()
    script = Scripted(values, name, interrupt_at)
    callbacks = [script, callback, *extra]
    # Recording happens in `script`, whose batch hooks run after all epoch hooks.
    if backup is not None:
        callbacks.append(keras.callbacks.BackupAndRestore(str(backup)))
    model.fit(X, Y, shuffle=False, epochs=epochs or len(values), verbose=0, callbacks=callbacks, **more)
    return script


def first_clipped(script):
    clipped = [epoch for epoch, stage in sorted(script.stages.items()) if stage]
    assert clipped == list(range(clipped[0], max(script.stages) + 1)) if clipped else True
    return clipped[0] if clipped else None


@pytest.fixture(scope="module")
def any_model():
    return build()


# ---- Plateau --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "arguments", "expected"),
    [
        ([5, 4, 4, 3, 3, 3, 3, 3], {"patience": 2}, 6),  # 4 was a first wait, 3 improved, then two more
        ([5, 4, 4, 3, 3, 3, 3, 3], {"patience": 1}, 3),
        ([5, 4, 3.5, 3, 2.5, 2.1, 2], {"patience": 2, "min_delta": 0.8}, None),
        ([5, 4, 3.5, 3, 2.5, 2.1, 2], {"patience": 2, "min_delta": 1}, 5),
        ([1, 2, 3, 3, 3, 4], {"patience": 2, "mode": "max"}, 5),
        ([1, 2, 3, 3, 3, 4], {"patience": 2, "mode": "min"}, 3),
        ([float("nan")] * 4, {"patience": 2}, 2),
        ([float("inf"), 1, 1, 1], {"patience": 3}, None),
        ([5, 4, 3, 2, 1, 0], {"patience": 1, "clip_from_epoch": 4}, 4),  # the latest
        ([5, 5, 3, 2, 1, 0], {"patience": 1, "clip_from_epoch": 4}, 2),
        ([5, 5, 3], {"patience": 1, "clip_from_epoch": 0}, 0),
    ],
)
def test_plateau(any_model, values, arguments, expected):
    arguments = {"mode": "min", **arguments}
    callback = TwoStageClipping(arguments.pop("clip_from_epoch", None), monitor="score", **arguments)
    if expected is None:
        with pytest.warns(UserWarning, match="stage 2 is never reached: .*waits for . epochs without .* of 'score'"):
            script = fit(callback, values, model=any_model)
    else:
        script = fit(callback, values, model=any_model)
    assert first_clipped(script) == expected
    assert sorted(script.stages) == list(range(len(values)))


@pytest.mark.parametrize(
    ("name", "better"),
    [("val_loss", -1), ("loss", -1), ("accuracy", 1), ("val_top_k_categorical_accuracy", 1), ("auc", 1)],
)
def test_mode_by_name(any_model, name, better):
    values = [better * v for v in (1, 2, 3, 3, 3)]
    script = fit(TwoStageClipping(monitor=name, patience=1), values, name=name, model=any_model)
    assert first_clipped(script) == 4


def test_real_metric_and_validation_in_the_stage_of_the_epoch():
    model = build()
    model.trainable = False  # nothing improves
    model.compile("sgd", "sparse_categorical_crossentropy")
    history = model.fit(
        X,
        Y,
        epochs=4,
        verbose=0,
        validation_data=(X, Y),
        callbacks=[TwoStageClipping(monitor="val_loss", patience=1)],
    ).history
    assert np.isnan(history["dense_saturation"]).tolist() == [True, True, False, False]
    losses = history["val_loss"]
    assert losses[0] == losses[1] != losses[2] == losses[3]


def test_metric_that_comes_every_other_epoch_only():
    values = [None, 3.0, None, 3.0, None, 3.0, None]
    with pytest.warns(UserWarning, match="'val_loss' is not in the logs of epoch 0.*has fit no validation_data"):
        script = fit(TwoStageClipping(monitor="val_loss", patience=2), values, name="val_loss")
    assert first_clipped(script) == 6


def test_a_second_fit_starts_anew_and_a_continued_one_goes_on():
    callback = TwoStageClipping(monitor="score", patience=2, mode="min")
    model = build()
    assert first_clipped(fit(callback, [3, 3, 3, 3], model=model)) == 3
    assert first_clipped(fit(callback, [3, 3, 3, 3], model=model)) == 3
    with pytest.warns(UserWarning, match="never reached"):
        fit(callback, [3, 3], model=model)
    assert first_clipped(fit(callback, [9, 9, 3, 3], model=model, initial_epoch=2)) == 3
    with pytest.warns(UserWarning, match=r"starts at epoch 2, but the values of 'score' in 2 of the epochs before"):
        script = fit(TwoStageClipping(monitor="score", patience=1, mode="min"), [9] * 5, model=model, initial_epoch=2)
    assert first_clipped(script) == 4


# ---- Learning rate --------------------------------------------------------------------------------------------------


class Decay(keras.callbacks.Callback):
    """Halves the learning rate after each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2


@pytest.mark.parametrize("start", [{"clip_from_epoch": 2}, {"monitor": "score", "patience": 1, "mode": "min"}])
@pytest.mark.parametrize(
    ("restart", "rate"),
    [({}, 0.125), ({"restart_learning_rate": 0.4}, 0.4), ({"restart_factor": 0.5}, 0.25)],
)
@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.legacy.Adam], ids=["new", "legacy"])
def test_restart(start, restart, rate, optimizer):
    script = fit(TwoStageClipping(**start, **restart), [1] * 4, model=build(optimizer(0.5)), extra=[Decay()])
    assert first_clipped(script) == 2
    np.testing.assert_allclose(list(script.rates.values()), [0.5, 0.25, rate, rate / 2])


def test_restart_of_wrapped_and_of_several_optimizers():
    inner = keras.optimizers.SGD(0.5)
    model = build(keras.mixed_precision.LossScaleOptimizer(inner))
    fit(TwoStageClipping(1, restart_learning_rate=0.25), [0, 0], model=model)
    assert float(inner.learning_rate) == 0.25

    adam = keras.optimizers.legacy.Adam(0.5)
    sgd = keras.optimizers.legacy.SGD(0.25)
    several = lq.optimizers.CaseOptimizer(
        (lq.optimizers.Bop.is_binary_variable, lq.optimizers.Bop()),
        (lambda variable: "gamma" in variable.name, sgd),
        default_optimizer=adam,
    )
    model = build(several)
    fit(TwoStageClipping(1, restart_factor=0.5), [0, 0], model=model)
    assert (float(adam.learning_rate), float(sgd.learning_rate)) == (0.25, 0.125)
    with pytest.raises(ValueError, match="has 2 learning rates; give restart_factor"):
        fit(TwoStageClipping(1, restart_learning_rate=0.5), [0, 0], model=model)
    with pytest.raises(ValueError, match="Bop has no learning rate to restart"):
        fit(TwoStageClipping(1, restart_factor=0.5), [0, 0], model=build(lq.optimizers.Bop()))


@pytest.mark.parametrize("module", [keras.optimizers, keras.optimizers.legacy], ids=["new", "legacy"])
def test_a_schedule_cannot_be_restarted_but_serves_without(module):
    def scheduled():
        return build(module.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)))

    model = scheduled()
    before = model.get_weights()
    with pytest.raises(ValueError, match="the schedule ExponentialDecay.*cannot be restarted; compile with a number"):
        fit(TwoStageClipping(1, restart_factor=1), [0, 0], model=model)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)
    model = scheduled()
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[TwoStageClipping(1)])


# ---- Interruptions --------------------------------------------------------------------------------------------------

VALUES = [5, 4, 4, 3, 3, 3, 3, 3]  # patience 2: clipped from 6


def resumable():
    return TwoStageClipping(monitor="score", patience=2, mode="min", restart_factor=0.5)


@pytest.mark.parametrize("interrupt_at", [1, 3, 5, 6, 7])
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(tmp_path, interrupt_at):
    whole_model = build()
    whole = fit(resumable(), VALUES, model=whole_model, extra=[Decay()])
    assert first_clipped(whole) == 6
    with pytest.raises(KeyboardInterrupt):
        fit(resumable(), VALUES, extra=[Decay()], backup=tmp_path / "backup", interrupt_at=interrupt_at)
    model = build()
    weights = len(model.weights)
    resumed = fit(resumable(), [None] * interrupt_at + VALUES[interrupt_at:], model=model, extra=[Decay()],
                  backup=tmp_path / "backup")  # fmt: skip
    assert resumed.stages == {epoch: epoch >= 6 for epoch in range(interrupt_at, 8)}
    assert resumed.rates == {epoch: whole.rates[epoch] for epoch in range(interrupt_at, 8)}
    for a, b in zip(whole_model.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert len(model.weights) == weights and NAME not in model._trackable_children()


def test_resumed_after_the_last_epoch(tmp_path):
    class DieAtEnd(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            raise KeyboardInterrupt

    def run(*extra):
        model = build()
        fit(TwoStageClipping(monitor="score", patience=1, mode="min"), [3, 3, 3], model=model, extra=extra,
            backup=tmp_path)  # fmt: skip
        return model

    with pytest.raises(KeyboardInterrupt):
        run(DieAtEnd())
    model = run()
    assert {clip.enabled for clip in accumulator_clips(model).values()} == {True}


def test_checkpoints_carry_the_state_and_loading_continues(tmp_path):
    saver = keras.callbacks.ModelCheckpoint(str(tmp_path / "weights-{epoch}"), save_weights_only=True)
    with pytest.raises(KeyboardInterrupt):
        fit(TwoStageClipping(monitor="score", patience=2, mode="min"), VALUES, extra=[saver], interrupt_at=5)
    model = build()
    model.load_weights(str(tmp_path / "weights-5"))
    script = fit(TwoStageClipping(monitor="score", patience=2, mode="min"), VALUES, model=model, initial_epoch=5)
    assert first_clipped(script) == 6


@pytest.mark.parametrize("suffix", [".h5", ".keras", ""])
def test_models_saved_during_training_are_ordinary(tmp_path, suffix):
    class Save(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.model.save(tmp_path / f"model{suffix}")

    model = build()
    fit(TwoStageClipping(monitor="score", patience=1, mode="min"), [3, 3, 3], model=model, extra=[Save()])
    loaded = keras.models.load_model(tmp_path / f"model{suffix}")
    np.testing.assert_array_equal(loaded(X), model(X))
    assert len(loaded.weights) == len(model.weights)
    assert first_clipped(fit(TwoStageClipping(monitor="score", patience=1, mode="min"), [3] * 3, model=loaded)) == 2


def test_backup_before_the_callback_is_refused(tmp_path):
    callbacks = [
        Scripted([3, 3]),
        keras.callbacks.BackupAndRestore(str(tmp_path)),
        TwoStageClipping(monitor="score", mode="min"),
    ]
    with pytest.raises(ValueError, match="BackupAndRestore comes before TwoStageClipping.*put BackupAndRestore last"):
        build().fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)


def test_backups_of_single_batches_are_no_matter_of_order(tmp_path):
    for position in (0, 2):
        callbacks = [Scripted([3, 3, 3]), TwoStageClipping(monitor="score", patience=1, mode="min")]
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / str(position)), save_freq=1)
        callbacks.insert(position, backup)
        model = build()
        model.fit(X, Y, epochs=3, batch_size=4, verbose=0, callbacks=callbacks)
        assert {clip.enabled for clip in accumulator_clips(model).values()} == {True}


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import larq_clip
from larq_clip._keras import keras
from test_two_stage_clipping import VALUES, Decay, fit, resumable

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 5:
            os.kill(os.getpid(), signal.SIGKILL)

fit(resumable(), VALUES, extra=[Decay(), Kill()], backup="backup")
"""


def test_training_continues_where_a_killed_process_ended(tmp_path):
    program = KILLED.format(tests=str(Path(__file__).parent))
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr[-3000:]
    whole_model, model = build(), build()
    whole = fit(resumable(), VALUES, model=whole_model, extra=[Decay()])
    resumed = fit(resumable(), VALUES, model=model, extra=[Decay()], backup=tmp_path / "backup")
    assert resumed.stages == {5: False, 6: True, 7: True}
    assert resumed.rates == {epoch: whole.rates[epoch] for epoch in (5, 6, 7)}
    for a, b in zip(whole_model.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(a, b)


# ---- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"clip_from_epoch is None; accepted are integers from 0 \(or None, with monitor\)"),
        ({"clip_from_epoch": -1, "monitor": "loss"}, "clip_from_epoch is -1"),
        ({"monitor": ""}, "monitor is ''"),
        ({"monitor": 3}, "monitor is 3"),
        ({"monitor": "loss", "patience": 0}, "patience is 0; accepted are integers from 1"),
        ({"monitor": "loss", "min_delta": -1}, "min_delta is -1; accepted are numbers from 0"),
        ({"monitor": "loss", "min_delta": float("nan")}, "min_delta is nan"),
        ({"monitor": "loss", "mode": "up"}, "mode is 'up'; accepted are 'min', 'max' and 'auto'"),
        ({"monitor": "score"}, "cannot tell whether more of 'score' is better"),
        (
            {"clip_from_epoch": 1, "restart_learning_rate": 0},
            "restart_learning_rate is 0; accepted are numbers above 0",
        ),
        ({"clip_from_epoch": 1, "restart_factor": "half"}, "restart_factor is 'half'"),
        ({"clip_from_epoch": 1, "restart_factor": 1, "restart_learning_rate": 1}, "both given"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TwoStageClipping(**arguments)


def test_a_metric_that_is_not_there():
    with pytest.raises(ValueError, match=r"'acc' is not in the logs of epoch 0, which are \['loss', 'score'\]"):
        fit(TwoStageClipping(monitor="acc"), [1, 1])
    with pytest.raises(ValueError, match=r"'val_accuracy' is not in the logs of epoch 0, .*'val_loss'"):
        fit(TwoStageClipping(monitor="val_accuracy"), [1, 1], validation_data=(X, Y))


def test_state_is_no_weight_and_leaves_no_trace(tmp_path):
    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.count = len(self.model.weights)
            assert isinstance(self.model._trackable_children()[NAME], tf.train.experimental.PythonState)

    model, count = build(), Count()
    fit(TwoStageClipping(monitor="score", patience=1, mode="min"), [3, 3, 3], model=model, extra=[count])
    assert count.count == len(model.weights) == len(build().weights)
    model.save_weights(tmp_path / "w")
    assert not [name for name, _ in tf.train.list_variables(str(tmp_path / "w")) if NAME in name]
