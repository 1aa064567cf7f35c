"""Under mixed-precision policies binary layers sum in float32: float16 holds no integer above 2048, bfloat16 none above
256."""

from __future__ import annotations

import numpy as np
import pytest

from larq_clip import arithmetic, callbacks, layers, models, quantizers
from larq_clip._keras import keras, lq, tf

POLICIES = ("mixed_float16", "mixed_bfloat16")
CHANNELS = 2501  # an odd accumulator beyond 2048 is in neither of the 16-bit types


@pytest.fixture(params=POLICIES)
def policy(request):
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy("float32")


def build():
    keras.utils.set_random_seed(2)
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    image = keras.Input((4, 4, 8), name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = keras.layers.BatchNormalization(name="stem_norm")(x)
    y = lq.layers.QuantConv2D(8, 3, padding="same", use_bias=False, name="conv", **binary)(x)
    y = keras.layers.BatchNormalization(name="norm")(y)
    y = keras.layers.Add(name="sum")([x, y])
    y = keras.layers.GlobalAveragePooling2D(name="mean")(y)
    y = keras.layers.Dense(4, name="dense")(y)
    return keras.Model(image, keras.layers.Activation("softmax", dtype="float32", name="softmax")(y))


def test_accumulators_stay_exact(policy):
    layer = layers.QuantDense(
        1, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, accumulator_quantizer=clip(False)
    )
    narrow = policy.removeprefix("mixed_")
    x = tf.ones((1, CHANNELS), narrow)
    layer.build(x.shape)
    layer.set_weights([np.ones((CHANNELS, 1), np.float32)])
    assert layer(x).dtype == tf.float32
    assert layer(x).numpy().item() == CHANNELS
    layer.accumulator_quantizer.enabled = True
    # Eight bits of a clipped accumulator are exact in 16-bit types.
    assert tf.cast(tf.cast(layer(x), narrow), tf.float32).numpy().item() == 127 * 16


def clip(enabled):
    return quantizers.AccumulatorClip(step=16, enabled=enabled)


def test_tiny_weights_keep_their_signs(policy):
    arguments = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    shared = lq.quantizers.SteSign()
    clipped = layers.QuantDense(1, **{**arguments, "kernel_quantizer": shared}, accumulator_quantizer=clip(True))
    plain = lq.layers.QuantDense(1, **{**arguments, "kernel_quantizer": shared})
    clipped.build((None, 16)), plain.build((None, 16))
    for layer in (clipped, plain):
        layer.set_weights([np.full((16, 1), -1e-9, np.float32)])
    assert clipped(tf.ones((1, 16))).numpy().item() == -16
    assert plain(tf.ones((1, 16))).dtype == policy.removeprefix("mixed_"), "the shared quantizer was changed"


def test_clipped_models_train_in_two_stages(policy, rng):
    x, y = rng.standard_normal((16, 4, 4, 8)).astype(np.float32), rng.integers(0, 4, 16)
    model = models.clip_model(build(), bits=4, step="auto", calibration_data=x, percentile=50)
    conv = model.get_layer("conv")
    assert (conv.compute_dtype, model.get_layer("norm").dtype_policy.name) == ("float32", policy)
    assert conv.output.dtype == tf.float32 and model.get_layer("norm").output.dtype == policy.removeprefix("mixed_")
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    assert hasattr(model.optimizer, "inner_optimizer") == (policy == "mixed_float16")
    before = model.get_weights()
    history = model.fit(
        x,
        y,
        batch_size=8,
        epochs=2,
        verbose=0,
        callbacks=[callbacks.TwoStageClipping(1, restart_factor=0.5)],
    )
    assert np.isfinite(history.history["loss"]).all()
    assert 0 < history.history["conv_saturation"][1] < 1
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    assert float(inner.learning_rate) == np.float32(0.005)
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights()))

    tensors = keras.Model(model.input, [conv.input, conv.output])
    inputs, outputs = (np.asarray(t).astype(np.float64) for t in tensors(x))
    padded = np.pad(np.where(inputs < 0, -1, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.where(conv.get_weights()[0] < 0, -1, 1)
    sums = sum(padded[:, i : i + 4, j : j + 4] @ kernel[i, j] for i in range(3) for j in range(3))
    step = conv.accumulator_quantizer.step
    np.testing.assert_array_equal(outputs, step * arithmetic.clip_accumulator(sums.astype(np.int64), 4, step))

    quantized, report = models.quantize_model(model, x, report=True)
    for layer in quantized.layers:
        assert layer.compute_dtype in ("float32", "float64"), layer.name
    assert np.isfinite(quantized.predict(x, verbose=0)).all()
    rows = {row.layer: row for row in report}
    assert rows["conv"].flipped_signs < 0.1 and rows["dense"].snr_db > 5


def test_a_loaded_model_computes_the_same(policy, rng, tmp_path):
    x = rng.standard_normal((4, 4, 4, 8)).astype(np.float32)
    model = models.clip_model(build(), bits=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_variables_in_16_bits_are_refused(dtype):
    layer = layers.QuantDense(4, accumulator_quantizer="accumulator_clip", name="small", dtype=dtype)
    with pytest.raises(ValueError, match=f"QuantDense 'small' .*computes in {dtype}.*accepted are float32 and float64"):
        layer.build((None, 8))


@pytest.mark.parametrize("make", [layers.StorageQuantizer, layers.FixedPointBatchNormalization])
def test_layers_of_fixed_point_compute_in_float32(policy, make):
    assert make().compute_dtype == "float32"


def test_an_unquantized_batch_norm_is_that_of_float32(policy, rng):
    x = 100 * rng.standard_normal((64, 3)).astype(np.float32)
    ours, theirs = layers.FixedPointBatchNormalization(), keras.layers.BatchNormalization(dtype="float32", fused=False)
    np.testing.assert_array_equal(ours(x, training=True), theirs(x, training=True))
