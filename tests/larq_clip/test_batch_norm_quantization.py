"""BatchNormQuantization: the schedule, what is frozen, optimizers, and what survives an interruption."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from larq_clip import fixed_point
from larq_clip._keras import keras, lq
from larq_clip.callbacks import BatchNormQuantization, SaturationMonitor, ThresholdRange, TwoStageClipping
from larq_clip.layers import FixedPointBatchNormalization, QuantDense
from larq_clip.models import accumulator_clips, clip_model, quantize_model

NAME = "larq_clip_batch_norm_quantization"
NORMS = ["norm_1", "norm_2", "norm_3"]
X = np.random.default_rng(0).standard_normal((8, 12)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 8)


def build(optimizer=None, eager=True, norm=FixedPointBatchNormalization, **arguments):
    """Three blocks; the names of the batch norms do not follow the alphabet."""
    keras.utils.set_random_seed(3)
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    x = image = keras.Input((12,))
    for i, name in enumerate(NORMS):
        x = QuantDense(8, name=f"dense_{3 - i}", use_bias=False, accumulator_quantizer="accumulator_clip", **binary)(x)
        x = norm(name=name, momentum=0.5, **arguments)(x)
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax", name="last")(x))
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9) if optimizer is None else optimizer
    model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=eager)
    return model


class Record(keras.callbacks.Callback):
    """What is quantized, frozen and learned at which rate, in each batch; weights at the start of each epoch."""

    def __init__(self, interrupt_at=None, action=None):
        super().__init__()
        self.interrupt_at, self.action = interrupt_at, action or self.interrupt
        self.quantized, self.frozen, self.rates, self.weights, self.logs = {}, {}, {}, {}, {}

    @staticmethod
    def interrupt():
        raise KeyboardInterrupt

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.weights[epoch] = {name: self.model.get_layer(name).get_weights() for name in NORMS}

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.interrupt_at:
            self.action()
        place = self.epoch, batch
        norms = [self.model.get_layer(name) for name in NORMS]
        self.quantized[place] = [norm.name for norm in norms if norm.quantized]
        self.frozen[place] = [norm.name for norm in norms if not norm.trainable]
        self.rates[place] = float(getattr(self.model.optimizer, "learning_rate", 0))  # CaseOptimizer has several

    def on_epoch_end(self, epoch, logs=None):
        self.logs[epoch] = dict(logs)


def fit(callback, epochs, *, model=None, backup=None, record=None, before=(), save_freq="epoch", same=False, **more):
    """Train with two batches an epoch, of the same data if `same`; a backup comes last."""
    model = model or build()
    record = record or Record()
    callbacks = [*before, callback, record]
    if backup is not None:
        callbacks.append(keras.callbacks.BackupAndRestore(str(backup), save_freq=save_freq))
    x, y = (np.concatenate([a[:4], a[:4]]) if same else a for a in (X, Y))
    model.fit(x, y, batch_size=4, shuffle=False, epochs=epochs, verbose=0, callbacks=callbacks, **more)
    return record


def counts(record):
    """Number of quantized batch norms in each batch; always the first ones."""
    for names in record.quantized.values():
        assert names == NORMS[: len(names)]
    return [len(names) for _, names in sorted(record.quantized.items())]


def formats(model):
    return [model.get_layer(name).format for name in NORMS]


def assert_same(one, other):
    assert formats(one) == formats(other)
    assert [model_layer.trainable for model_layer in one.layers] == [layer.trainable for layer in other.layers]
    for a, b in zip(one.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(a, b)


# ---- Schedule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"start_epoch": 1, "epochs_per_stage": 2, "per_stage": 2}, [0, 0, 2, 2, 2, 2, 3, 3]),
        ({"start_epoch": 1, "batches_per_stage": 3}, [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]),
        ({"start_epoch": 2, "batches_per_stage": 1}, [0, 0, 0, 0, 1, 2, 3, 3]),
    ],
)
def test_schedule(arguments, expected):
    record = fit(BatchNormQuantization(**arguments), len(expected) // 2)
    assert counts(record) == expected
    assert record.frozen == record.quantized
    assert [logs["quantized_batch_norms"] for _, logs in sorted(record.logs.items())] == expected[1::2]


def test_some_layers_in_the_order_of_the_model():
    model = build()
    record = fit(BatchNormQuantization(1, layers=["norm_3", model.get_layer("norm_1")]), 3, model=model)
    assert list(record.quantized.values())[::2] == [[], ["norm_1"], ["norm_1", "norm_3"]]


def test_stages_begin_after_the_clips_are_on():
    model = build()
    record = fit(BatchNormQuantization(), 5, model=model, before=[TwoStageClipping(2)])
    assert counts(record)[::2] == [0, 0, 1, 2, 3]
    assert all(clip.enabled for clip in accumulator_clips(model).values())


@pytest.mark.parametrize("variables, chosen", [("folded", "channel"), ("paper", "layer")])
def test_a_frozen_batch_norm_stays_and_the_rest_trains(variables, chosen):
    model = build(variables=variables)
    record = fit(BatchNormQuantization(1), 4, model=model)
    for stage, name in enumerate(NORMS, 1):
        at = [record.weights[epoch][name] for epoch in range(4)] + [model.get_layer(name).get_weights()]
        for epoch in range(4):
            same = [np.array_equal(a, b) for a, b in zip(at[epoch], at[epoch + 1])]
            assert same == [epoch >= stage] * 4, (name, epoch)
        norm = fixed_point.BatchNorm(*at[stage], model.get_layer(name).epsilon)
        assert model.get_layer(name).format == fixed_point.choose_format(norm, variables, chosen)


def test_not_frozen_it_trains_on_in_its_format():
    model = build()
    record = fit(BatchNormQuantization(1, per_stage="all", freeze=False, granularity="layer"), 3, model=model)
    assert record.frozen == {place: [] for place in record.quantized}
    at = record.weights[1]["norm_1"]
    assert model.get_layer("norm_1").trainable
    norm = fixed_point.BatchNorm(*at, model.get_layer("norm_1").epsilon)
    assert model.get_layer("norm_1").format == fixed_point.choose_format(norm, "folded", "layer")
    assert not any(np.array_equal(a, b) for a, b in zip(at, model.get_layer("norm_1").get_weights()))


@pytest.mark.parametrize(("start", "rates"), [
    ({"restart_learning_rate": 0.5}, [0.02, 0.5, 0.5]), ({"restart_factor": 2}, [0.02, 0.04, 0.04]),
])  # fmt: skip
def test_each_stage_restarts_the_learning_rate(start, rates):
    class Decay(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.001

    record = fit(BatchNormQuantization(1, per_stage=2, **start), 4, before=[Decay()])
    np.testing.assert_allclose(list(record.rates.values())[::2], [*rates, 0.001])


# ---- What was traced ------------------------------------------------------------------------------------------------


def test_traced_functions_follow():
    """Compiled, with validation and batches as stages, training is what it is eagerly; and so in the next fit."""
    models = [build(keras.optimizers.Adam(0.02), eager) for eager in (True, False)]
    histories = []
    for model in models:
        history = keras.callbacks.History()
        callback = BatchNormQuantization(1, batches_per_stage=1, per_stage=2)
        fit(callback, 2, model=model, before=[history], validation_data=(X, Y))
        histories.append(history.history)
    for name in ("loss", "val_loss"):
        # Float32 in another order, through Adam, which magnifies what small gradients differ in.
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-3)
    assert formats(models[0]) == formats(models[1])
    compiled = models[1]
    np.testing.assert_allclose(compiled.predict(X, verbose=0), compiled(X), rtol=1e-5)
    assert_only_frozen_stay(compiled, NORMS)
    np.testing.assert_allclose(compiled.predict(X, verbose=0), compiled(X), rtol=1e-5)


def assert_only_frozen_stay(model, frozen):
    """One more epoch, without the callback, moves all weights but those of these batch norms."""
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.fit(X, Y, verbose=0)
    for layer in model.layers:
        same = [np.array_equal(a, b) for a, b in zip(before[layer.name], layer.get_weights())]
        assert same == [layer.name in frozen] * len(same), layer.name
        assert layer.trainable == (layer.name not in frozen)


def case_optimizer(rate):
    """Bop for binary kernels, Adam for the rest."""
    bop = lq.optimizers.Bop(threshold=1e-6, gamma=0.9)
    default = keras.optimizers.legacy.Adam(rate)
    return lq.optimizers.CaseOptimizer((lq.optimizers.Bop.is_binary_variable, bop), default_optimizer=default)


@pytest.mark.parametrize("optimizer", [
    lambda rate: keras.optimizers.SGD(rate, momentum=0.9, use_ema=True, ema_momentum=0.5),
    keras.optimizers.legacy.Adam,
    lambda rate: keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(rate)),
    case_optimizer,
], ids=["ema", "legacy", "loss scale", "case"])  # fmt: skip
def test_optimizers_know_what_is_frozen_and_what_thaws(optimizer):
    model = build(optimizer(0.02))
    norms = [model.get_layer(name) for name in NORMS]
    for norm in norms:
        norm.moving_mean.assign(np.linspace(-1, 1, 8))
    for norm in norms[:2]:
        norm.quantize()
        norm.trainable = False
    model.compile(model.optimizer, model.loss, run_eagerly=True)
    # The first step that the optimizer sees is without two of them.
    assert counts(fit(BatchNormQuantization(), 3, model=model, initial_epoch=2)) == [3, 3]
    assert_only_frozen_stay(model, NORMS)
    record = fit(BatchNormQuantization(1, per_stage="all"), 2, model=model)
    assert counts(record) == [0, 0, 3, 3]
    for name in NORMS:
        for a, b in zip(record.weights[0][name], record.weights[1][name]):
            assert not np.array_equal(a, b), name
    assert_only_frozen_stay(model, NORMS)


# ---- Interruptions --------------------------------------------------------------------------------------------------

SCHEDULES = {
    "epochs": {"start_epoch": 1, "restart_factor": 0.5},
    "not frozen": {"start_epoch": 2, "per_stage": "all", "freeze": False},
    "batches": {"start_epoch": 1, "batches_per_stage": 3},
}


# Resumed within an epoch, Keras begins its data anew, so that there both batches have to be the same.
@pytest.mark.parametrize(("schedule", "interrupted", "save_freq", "resumed_at"), [
    ("epochs", (3, 1), "epoch", (3, 0)), ("not frozen", (2, 1), 1, (2, 1)), ("batches", (2, 1), 1, (2, 1)),
])  # fmt: skip
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(tmp_path, schedule, interrupted, save_freq, resumed_at):
    arguments, same = SCHEDULES[schedule], save_freq == 1
    whole_model, model = build(), build()
    whole = fit(BatchNormQuantization(**arguments), 5, model=whole_model, same=same)
    more = {"backup": tmp_path, "save_freq": save_freq, "same": same}
    with pytest.raises(KeyboardInterrupt):
        fit(BatchNormQuantization(**arguments), 5, record=Record(interrupted), **more)
    resumed = fit(BatchNormQuantization(**arguments), 5, model=model, **more)
    assert min(resumed.quantized) == resumed_at
    for name in ("quantized", "frozen", "rates"):
        expected = {at: value for at, value in getattr(whole, name).items() if at >= resumed_at}
        assert getattr(resumed, name) == expected, name
    assert_same(model, whole_model)
    assert NAME not in model._trackable_children()


def test_the_same_model_goes_on_after_an_interruption(tmp_path):
    """It is frozen and quantized further than the backup, which was made before."""
    whole_model, model = build(), build()
    fit(BatchNormQuantization(1), 5, model=whole_model)
    with pytest.raises(KeyboardInterrupt):
        fit(BatchNormQuantization(1), 5, model=model, backup=tmp_path, record=Record((2, 1)))
    assert [bool(chosen) for chosen in formats(model)] == [True, True, False]
    fit(BatchNormQuantization(1), 5, model=model, backup=tmp_path)
    assert_same(model, whole_model)


def watched(folder, *, model=None, record=None):
    """All callbacks in one fit."""
    before = [TwoStageClipping(1), ThresholdRange(), SaturationMonitor(X, csv=folder / "table.csv", bins=4)]
    return fit(BatchNormQuantization(2), 6, model=model, backup=folder / "backup", before=before, record=record)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import larq_clip
from test_batch_norm_quantization import Record, watched
watched(Path("."), record=Record((4, 1), lambda: os.kill(os.getpid(), signal.SIGKILL)))
"""


def test_training_continues_where_a_killed_process_ended(tmp_path):
    program = KILLED.format(tests=str(Path(__file__).parent))
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr[-3000:]
    (tmp_path / "whole").mkdir()
    whole_model, model = build(), build()
    whole = watched(tmp_path / "whole", model=whole_model)
    resumed = watched(tmp_path, model=model)
    assert min(resumed.quantized) == (4, 0) and counts(whole)[::2] == [0, 0, 1, 2, 3, 3]
    assert resumed.logs == {epoch: whole.logs[epoch] for epoch in (4, 5)}
    assert "dense_3_thresholds_moved" in whole.logs[0]
    assert_same(model, whole_model)
    assert (tmp_path / "table.csv").read_text() == (tmp_path / "whole" / "table.csv").read_text()


def test_resumed_after_the_last_epoch(tmp_path):
    class DieAtEnd(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            raise KeyboardInterrupt

    whole_model, model = build(), build()
    with pytest.raises(KeyboardInterrupt):
        fit(BatchNormQuantization(1), 4, model=whole_model, before=[DieAtEnd()], backup=tmp_path)
    fit(BatchNormQuantization(1), 4, model=model, backup=tmp_path)
    assert_same(model, whole_model)


def test_models_saved_within_the_schedule_go_on(tmp_path):
    class Save(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                self.model.save(tmp_path / "model.h5")

    def plain():
        return build(keras.optimizers.SGD(0.02))  # without slots, so that nothing of it is lost

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole_model = plain()
        fit(BatchNormQuantization(1), 5, model=whole_model, before=[Save()])
        model = keras.models.load_model(tmp_path / "model.h5")
    assert len(model.weights) == len(whole_model.weights)
    assert [bool(chosen) for chosen in formats(model)] == [True, True, False]
    model.compile(keras.optimizers.SGD(0.02), "sparse_categorical_crossentropy", run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        record = fit(BatchNormQuantization(1), 5, model=model, initial_epoch=3)
    assert counts(record) == [3] * 4
    assert_same(model, whole_model)


def test_what_no_checkpoint_holds_is_chosen_again_with_a_warning():
    model = build()
    fit(BatchNormQuantization(3, per_stage="all"), 4, model=model)
    other = build()
    other.set_weights(model.get_weights())
    with pytest.warns(UserWarning, match=r"starts at epoch 4, before which \['norm_1', 'norm_2', 'norm_3'\] should"):
        fit(BatchNormQuantization(3, per_stage="all"), 5, model=other, initial_epoch=4)
    assert formats(other) == formats(model)


def test_a_second_fit_starts_anew():
    callback, model = BatchNormQuantization(1, per_stage="all"), build()
    for _ in range(2):
        assert counts(fit(callback, 2, model=model)) == [0, 0, 3, 3]
    assert counts(fit(callback, 3, model=model, initial_epoch=2)) == [3, 3]


# ---- Models ---------------------------------------------------------------------------------------------------------


def test_what_quantize_model_makes_and_its_stored_formats():
    def block(x):
        binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
        y = keras.layers.BatchNormalization(momentum=0.5)(lq.layers.QuantDense(12, **binary)(x))
        return keras.layers.Add()([x, y])

    keras.utils.set_random_seed(3)
    image = keras.Input((12,))
    clipped = clip_model(keras.Model(image, keras.layers.Dense(3, activation="softmax")(block(block(image)))))
    clipped.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    clipped.fit(X, Y, verbose=0)
    model = quantize_model(clipped, X)
    stored = [layer.get_config() for layer in model.layers if type(layer).__name__ == "StorageQuantizer"]
    norms = [layer for layer in model.layers if isinstance(layer, FixedPointBatchNormalization)]
    assert stored and len(norms) == 2 and all(norm.quantized for norm in norms)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([norm.quantized for norm in norms])

    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[BatchNormQuantization(1), Watch()])
    assert seen == [[False, False], [True, False], [True, True]]
    assert stored == [layer.get_config() for layer in model.layers if type(layer).__name__ == "StorageQuantizer"]


# ---- Warnings and errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"before": [TwoStageClipping(2)], "epochs": 4}], ids=["plain", "clips late"])
def test_a_fit_too_short_warns(arguments):
    arguments = {"epochs": 2, **arguments}
    with pytest.warns(UserWarning, match="before all batch norms are quantized.* 3 stages of 1 epochs") as caught:
        fit(BatchNormQuantization(0 if "before" in arguments else 1), **arguments)
    assert len([w for w in caught if "BatchNormQuantization" in str(w.message)]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_epoch": -1}, "start_epoch is -1; accepted are integers from 0"),
        ({"epochs_per_stage": 0}, "epochs_per_stage is 0; accepted are integers from 1"),
        ({"batches_per_stage": 1.5}, "batches_per_stage is 1.5"),
        ({"batches_per_stage": 1, "epochs_per_stage": 1}, "both given"),
        ({"per_stage": "some"}, "per_stage is 'some'; accepted are integers from 1 and 'all'"),
        ({"layers": "norm_1"}, "layers is 'norm_1'; accepted are None and a list"),
        ({"layers": []}, r"layers is \[\]"),
        ({"freeze": 1}, "freeze is 1; accepted are True and False"),
        ({"granularity": "tensor"}, "granularity is 'tensor'; accepted are"),
        ({"restart_factor": 1, "restart_learning_rate": 1}, "both given"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchNormQuantization(**arguments)


def test_models_that_do_not_fit():
    with pytest.raises(ValueError, match="no FixedPointBatchNormalization layer.*quantize_model puts them"):
        fit(BatchNormQuantization(), 1, model=build(norm=keras.layers.BatchNormalization))
    with pytest.raises(ValueError, match="layers holds 'no', which is not in model"):
        fit(BatchNormQuantization(layers=["no"]), 1)
    with pytest.raises(ValueError, match=r"layers holds 'last' \(Dense\); accepted are FixedPointBatchNormalization"):
        fit(BatchNormQuantization(layers=["last"]), 1)
    with pytest.raises(ValueError, match="batch norm 'norm_1' has no statistics: .*train the model"):
        fit(BatchNormQuantization(), 3)


def test_a_checkpoint_of_another_schedule_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(BatchNormQuantization(1), 5, backup=tmp_path, record=Record((3, 0)))
    with pytest.raises(ValueError, match=r"has quantized \['norm_1', 'norm_2'\], of which this schedule knows nothing"):
        fit(BatchNormQuantization(1, layers=["norm_3"]), 5, backup=tmp_path)
