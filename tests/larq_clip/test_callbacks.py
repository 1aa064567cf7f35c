"""TwoStageClipping: the switch inside one fit, the logs, resuming after an interruption."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pytest

from larq_clip._keras import keras, lq, tf
from larq_clip.callbacks import TwoStageClipping
from larq_clip.models import accumulator_clips, clip_model, set_clipping
from larq_clip.quantizers import AccumulatorClip

KEYS = ["conv_saturation", "dense_saturation"]


def build_small():
    keras.utils.set_random_seed(3)
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    return keras.Sequential(
        [
            keras.layers.InputLayer((6, 6, 8), name="image"),
            lq.layers.QuantConv2D(8, 3, use_bias=False, name="conv", **binary),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(name="flatten"),
            lq.layers.QuantDense(10, activation="softmax", name="dense", **binary),
        ],
        name="small",
    )


@pytest.fixture
def clipped():
    model = clip_model(build_small(), bits=4)
    # Most tests watch single steps; compiling would take longer than all steps together.
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    return model


def states(model):
    return {clip.enabled for clip in accumulator_clips(model).values()}


class Recorder(keras.callbacks.Callback):
    """What the model is like during training, with an interruption at will."""

    def __init__(self, interrupt_at=None):
        super().__init__()
        self.epochs, self.tests, self.interrupt_at = {}, {}, interrupt_at

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.epochs[self.epoch] = states(self.model)
        if (self.epoch, batch) == self.interrupt_at:
            raise KeyboardInterrupt

    def on_test_batch_end(self, batch, logs=None):
        self.tests[self.epoch] = states(self.model)


def test_stages_inside_one_fit(clipped, images, labels):
    recorder = Recorder()
    set_clipping(clipped, True)
    clipped.compile("adam", "sparse_categorical_crossentropy")
    history = clipped.fit(
        images,
        labels,
        batch_size=8,
        epochs=4,
        verbose=0,
        validation_data=(images, labels),
        callbacks=[recorder, TwoStageClipping(2)],
    ).history
    assert recorder.epochs == recorder.tests == {0: {False}, 1: {False}, 2: {True}, 3: {True}}
    assert states(clipped) == {True}
    for key in KEYS:
        assert np.isnan(history[key][:2]).all()
        assert all(0 < share < 1 for share in history[key][2:]) and len(history[key]) == 4
    assert not [key for key in history if key.startswith("val_") and "saturation" in key]


@pytest.mark.parametrize("compile_arguments", [{}, {"jit_compile": True}, {"steps_per_execution": 2}])
def test_switching_retraces_nothing_and_changes_training(clipped, images, labels, compile_arguments):
    traces = []

    class Traced(keras.layers.Layer):
        def call(self, inputs):
            traces.append(tf.inside_function())
            return inputs

    model = keras.Sequential([*clipped.layers, Traced()])
    model.build((None, 6, 6, 8))
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", **compile_arguments)
    set_clipping(model, False)
    unclipped = model.fit(images, labels, batch_size=8, shuffle=False, verbose=0).history["loss"]
    count = len(traces)
    set_clipping(model, True)
    assert model.fit(images, labels, batch_size=8, shuffle=False, verbose=0).history["loss"] != unclipped
    set_clipping(model, False)
    assert model.fit(images, labels, batch_size=8, shuffle=False, verbose=0).history["loss"] == unclipped
    history = model.fit(
        images, labels, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[TwoStageClipping(1)]
    ).history
    assert history["loss"][0] == unclipped[0] and unclipped[0] not in history["loss"][1:]
    assert len(traces) == count


def test_logged_share_is_that_of_the_epoch(images, labels):
    arguments = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    model = keras.Sequential(
        [
            keras.layers.InputLayer((6, 6, 8)),
            keras.layers.Flatten(),
            lq.layers.QuantDense(10, name="dense", **arguments),
            keras.layers.Softmax(),
        ]
    )
    a = keras.Model(model.inputs, model.get_layer("dense").output)(images).numpy()
    expected = np.mean(np.abs(a) > 3 * 4)
    assert 0 < expected < 1
    model = clip_model(model, bits=3, step=4)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")  # the weights stay
    history = model.fit(
        images,
        labels,
        batch_size=5,
        epochs=3,
        verbose=0,
        validation_data=(np.zeros_like(images), labels),  # not to be counted
        callbacks=[TwoStageClipping(1)],
    ).history
    assert history["dense_saturation"][1:] == [expected, expected]


def test_clipped_from_the_start(clipped, images, labels):
    set_clipping(clipped, False)
    recorder = Recorder()
    history = clipped.fit(images, labels, verbose=0, callbacks=[TwoStageClipping(0), recorder]).history
    assert recorder.epochs == {0: {True}} and not np.isnan(history["dense_saturation"][0])


def test_csv_logger_and_nested_models_see_the_keys(images, labels, tmp_path):
    inner = keras.Sequential(
        [
            keras.layers.InputLayer((6, 6, 8)),
            keras.layers.Flatten(),
            lq.layers.QuantDense(10, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="dense"),
        ],
        name="inner",
    )
    x = keras.Input((6, 6, 8))
    model = clip_model(keras.Model(x, keras.layers.Softmax()(inner(x))), bits=3)
    model.compile("sgd", "sparse_categorical_crossentropy")
    path = tmp_path / "log.csv"
    model.fit(
        images, labels, epochs=2, verbose=0, callbacks=[TwoStageClipping(1), keras.callbacks.CSVLogger(str(path))]
    )
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["inner/dense_saturation"] == "nan" and 0 < float(rows[1]["inner/dense_saturation"]) < 1


def test_a_clip_that_is_a_layer_of_its_own(images, labels):
    model = keras.Sequential(
        [
            keras.layers.InputLayer((6, 6, 8)),
            keras.layers.Flatten(),
            lq.layers.QuantDense(10, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False),
            AccumulatorClip(bits=3, name="after"),
            keras.layers.Softmax(),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    history = model.fit(images, labels, epochs=2, verbose=0, callbacks=[TwoStageClipping(1)]).history
    assert 0 < history["after_saturation"][1] < 1


# ---- Resuming -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interrupt_at", [(1, 0), (3, 1)], ids=["in stage 1", "in stage 2"])
def test_resumes_in_the_right_stage(images, labels, tmp_path, interrupt_at):
    def fit(recorder):
        model = clip_model(build_small(), bits=4)  # as a new process would
        model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
        callbacks = [TwoStageClipping(2), keras.callbacks.BackupAndRestore(str(tmp_path / "backup")), recorder]
        return model, model.fit(
            images, labels, batch_size=8, epochs=5, shuffle=False, verbose=0, callbacks=callbacks
        ).history

    with pytest.raises(KeyboardInterrupt):
        fit(Recorder(interrupt_at))
    recorder = Recorder()
    model, history = fit(recorder)
    assert recorder.epochs == {epoch: {epoch >= 2} for epoch in range(interrupt_at[0], 5)}
    assert states(model) == {True}
    assert [np.isnan(v) for v in history["dense_saturation"]] == [e < 2 for e in range(interrupt_at[0], 5)]


def test_resumed_after_the_last_epoch_ends_in_its_stage(clipped, images, labels):
    for clip_from_epoch, expected in ((3, True), (0, True)):
        set_clipping(clipped, False)
        clipped.fit(images, labels, epochs=4, initial_epoch=4, verbose=0, callbacks=[TwoStageClipping(clip_from_epoch)])
        assert states(clipped) == {expected}


def test_initial_epoch_counts(clipped, images, labels):
    recorder = Recorder()
    clipped.fit(images, labels, epochs=4, initial_epoch=2, verbose=0, callbacks=[TwoStageClipping(3), recorder])
    assert recorder.epochs == {2: {False}, 3: {True}}


def test_stopped_early_the_model_stays_in_the_stage_of_the_last_epoch(clipped, images, labels):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    clipped.fit(images, labels, epochs=9, verbose=0, callbacks=[TwoStageClipping(5), Stop()])
    assert states(clipped) == {False}


# ---- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 2])
def test_warns_where_stage_2_is_never_reached(clipped, images, labels, epochs):
    with pytest.warns(UserWarning, match=rf"never reached: fit ends after {epochs} epochs.*from epoch 2 on"):
        clipped.fit(images, labels, epochs=epochs, verbose=0, callbacks=[TwoStageClipping(2)])
    assert states(clipped) == {False}


def test_does_not_warn_where_stage_2_is_one_epoch(clipped, images, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clipped.fit(images, labels, epochs=2, verbose=0, callbacks=[TwoStageClipping(1)])
    assert states(clipped) == {True}


def test_a_model_without_clips_is_refused(images, labels):
    model = build_small()
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    with pytest.raises(ValueError, match="model 'small' has no AccumulatorClip"):
        model.fit(images, labels, verbose=0, callbacks=[TwoStageClipping(1)])
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


@pytest.mark.parametrize("value", [-1, 1.0, "1", None, True])
def test_wrong_epochs_are_refused(value):
    with pytest.raises(ValueError, match=r"clip_from_epoch is .*accepted are integers from 0"):
        TwoStageClipping(value)
