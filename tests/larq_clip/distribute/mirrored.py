"""Under MirroredStrategy on two virtual devices all that one device does: run by tests/larq_clip/test_distribute.py."""

from __future__ import annotations

import numpy as np
from network import PIXELS_AND_CHANNELS, build, compile_model, data, formats

from larq_clip import callbacks, layers, models
from larq_clip._keras import keras, tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
IMAGES, BATCH, EPOCHS, STAGE_2 = 32, 16, 2, 1
X, Y = data(IMAGES)


class Switches(keras.callbacks.Callback):
    """Whether the clips are on, in each training step, on each replica."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append([on_all(clip._state.switch) for clip in models.accumulator_clips(self.model).values()])


def on_all(variable):
    """A variable's value on each device."""
    return [np.asarray(value).tolist() for value in STRATEGY.experimental_local_results(variable)]


def steps(model):
    return {name: clip.step for name, clip in models.accumulator_clips(model).items()}


def train(model):
    compile_model(model)
    switches = Switches()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH).repeat()
    history = model.fit(
        dataset,
        steps_per_epoch=IMAGES // BATCH,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[callbacks.TwoStageClipping(STAGE_2), switches],
    )
    return history.history, switches.seen


def main():
    alone = models.clip_model(build(), bits=5, step="auto", calibration_data=X)
    with STRATEGY.scope():
        plain = build()
        inside = models.clip_model(plain, bits=5, step="auto", calibration_data=X)
    parts = STRATEGY.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH))
    outside = models.clip_model(plain, bits=5, step="auto", calibration_data=parts)
    assert steps(alone) == steps(inside) == steps(outside), (steps(alone), steps(inside), steps(outside))
    assert max(steps(alone).values()) > 1, steps(alone)
    assert outside.distribute_strategy is STRATEGY, "clip_model outside of the scope left the model's strategy"

    expected, one = train(models.clip_model(build(), bits=5))
    with STRATEGY.scope():
        model = models.clip_model(build(), bits=5)
        found, switches = train(model)
    assert switches == [[[step >= 2, step >= 2]] * 2 for step in range(4)], switches
    assert one == [[[step >= 2]] * 2 for step in range(4)], one
    assert set(found) == set(expected), (set(found), set(expected))
    for name, values in expected.items():
        # Sums of float32 in another order; the share counts integers.
        tolerance = 0 if name.endswith("_saturation") else 1e-5
        np.testing.assert_allclose(found[name], values, rtol=tolerance, err_msg=name)
    assert 0 < found["conv_1_saturation"][1] < 1, found
    for clip in models.accumulator_clips(model).values():
        counted = on_all(clip._state.total)
        assert sum(counted) == IMAGES * PIXELS_AND_CHANNELS and min(counted) > 0, counted
    for variable in model.weights:
        one, other = on_all(getattr(variable, "latent_variable", variable))
        assert one == other, f"{variable.name} differs between the replicas"

    with STRATEGY.scope():
        inside = models.quantize_model(model, X)
        compile_model(inside)
    outside, report = models.quantize_model(model, parts, report=True)
    assert outside.distribute_strategy is STRATEGY, "quantize_model outside of the scope left the model's strategy"
    assert formats(inside) == formats(outside), (formats(inside), formats(outside))
    assert {"norm_1_int8", "norm_2", "dense"} <= set(formats(inside)), formats(inside)
    assert len(report) == len(inside.layers) - 1, report
    np.testing.assert_array_equal(inside(X), outside(X))
    inside.fit(X, Y, batch_size=BATCH, verbose=0)
    for variable in inside.weights:
        one, other = on_all(getattr(variable, "latent_variable", variable))
        assert one == other, f"{variable.name} of the quantized model differs between the replicas"
    freeze_batch_norms()


def freeze_batch_norms():
    """Each replica has moving statistics of its own, until BatchNormQuantization freezes them."""
    apart = []

    class Apart(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            norm = self.model.get_layer("norm")
            apart.append([on_all(v)[0] != on_all(v)[1] for v in (norm.moving_mean, norm.moving_variance)])

    with STRATEGY.scope():
        image = keras.Input(X.shape[1:])
        y = layers.FixedPointBatchNormalization(name="norm")(image)
        y = keras.layers.Dense(4, activation="softmax")(keras.layers.Flatten()(y))
        model = keras.Model(image, y)
        compile_model(model)
    model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[callbacks.BatchNormQuantization(1), Apart()])
    norm = model.get_layer("norm")
    assert apart == [[True, True], [False, False]] and norm.quantized, apart
    frozen = norm.get_weights()
    model.fit(X, Y, batch_size=BATCH, verbose=0)
    for before, variable in zip(frozen, norm.weights):
        assert on_all(variable) == [before.tolist()] * 2, f"{variable.name} of the frozen batch norm moved"


main()
