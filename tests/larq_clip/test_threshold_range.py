"""ThresholdRange: which layers it acts on, where thresholds end up, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from larq_clip._callbacks.threshold_range import project, threshold_pairs, thresholds
from larq_clip._keras import keras, lq
from larq_clip.callbacks import ThresholdRange, TwoStageClipping
from larq_clip.models import clip_model

BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "use_bias": False,
}


def conv(name, **changes):
    return lq.layers.QuantConv2D(8, 3, padding="same", name=name, **{**BINARY, **changes})


def last(name="last"):
    return lq.layers.QuantDense(3, activation="softmax", input_quantizer="ste_sign", name=name)


def batch_norm(name, **arguments):
    return keras.layers.BatchNormalization(name=name, **arguments)


def build(bits=3, **norm):
    keras.utils.set_random_seed(5)
    layers = [
        keras.layers.InputLayer((4, 4, 8)),
        conv("conv"),
        keras.layers.MaxPool2D(2),
        batch_norm("norm", momentum=0.5, **norm),
        keras.layers.Flatten(),
        last(),
    ]
    return clip_model(keras.Sequential(layers), bits=bits)


def set_norm(norm, **values):
    for name, value in values.items():
        getattr(norm, name).assign(value)


def signs(norm, values):
    """Of the batch norm, in inference, at each value in each channel."""
    grid = np.repeat(np.asarray(values, np.float32)[:, None, None, None], norm.gamma.shape[0], axis=3)
    return norm(grid, training=False).numpy()[:, 0, 0] >= 0


@pytest.mark.parametrize("levels", [None, 3])
def test_the_range_of_a_scaled_accumulator_is_scaled(levels):
    """What the norm sees is s c, or s c / n: +-127 s / n of the clip, half a step less."""
    keras.utils.set_random_seed(5)
    arguments = {"kernel_quantizer": "magnitude_aware_sign"}
    if levels:
        arguments["input_quantizer"] = lq.quantizers.DoReFa(2)
    layers = [keras.layers.InputLayer((4, 4, 8)), conv("conv", **arguments), batch_norm("norm"), last()]
    model = clip_model(keras.Sequential(layers), step=2)
    (pair,) = threshold_pairs(model)
    scale = model.get_layer("conv").kernel_scale()
    np.testing.assert_allclose(pair.limit, 253 * scale / (levels or 1), rtol=2**-22)
    assert np.ptp(scale) > 0
    set_norm(pair.norm, beta=np.full(8, -1e6), gamma=np.ones(8))
    assert project(pair.norm, pair.limit) == 8
    np.testing.assert_allclose(thresholds(pair.norm), pair.limit, rtol=1e-5)


@pytest.mark.parametrize("limit", [2.5, 126.5, 1.5])
def test_projection(rng, limit):
    norm = batch_norm("norm")
    norm.build((None, 4, 4, 64))
    gamma = rng.standard_normal(64).astype(np.float32)
    gamma[:4] = 0
    beta = rng.standard_normal(64).astype(np.float32)
    set_norm(norm, gamma=gamma, beta=beta, moving_mean=rng.standard_normal(64) * 2 * limit,
             moving_variance=rng.uniform(0, 9, 64))  # fmt: skip
    tau = thresholds(norm)
    sigma = np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    np.testing.assert_allclose(tau[4:], (norm.moving_mean.numpy() - beta * sigma / np.where(gamma, gamma, 1))[4:], 1e-4)
    assert np.isnan(tau[:4]).all()
    outside = np.abs(tau) > limit
    assert 5 < outside.sum() < 60
    assert project(norm, limit) == outside.sum()
    np.testing.assert_array_equal(norm.beta.numpy()[~outside], beta[~outside])
    np.testing.assert_array_equal(norm.gamma.numpy(), gamma)
    np.testing.assert_allclose(thresholds(norm)[outside], np.copysign(limit, tau[outside]), rtol=1e-5)
    largest = limit + 0.5
    changes = (signs(norm, [-largest]) != signs(norm, [largest]))[0]
    assert changes[4:].all() and not changes[:4].any()


def test_inside_one_fit_no_channel_is_constant(images, labels):
    x = images[:, :4, :4]
    y = labels % 3
    norm_of, history = {}, {}
    for every in (None, "epoch", "batch"):
        model = build()
        norm = model.get_layer("norm")
        set_norm(norm, beta=[9.0, -9.0, 0, 0, 0, 0, 0, 0])
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
        seen = []

        class Watch(keras.callbacks.Callback):
            def on_test_end(self, logs=None, seen=seen, norm=norm):
                seen.append(np.abs(thresholds(norm)).max())

        extra = [] if every is None else [ThresholdRange(every)]
        history[every] = model.fit(
            x, y, batch_size=8, epochs=4, verbose=0, shuffle=False, validation_data=(x, y),
            callbacks=[TwoStageClipping(2), *extra, Watch()],
        ).history  # fmt: skip
        norm_of[every] = seen
        assert all(limit > 2.5001 for limit in seen[:2])  # the clip is off
    assert all(limit > 2.5001 for limit in norm_of[None][2:])
    for every in ("epoch", "batch"):
        assert all(limit <= 2.5001 for limit in norm_of[every][2:])
        moved = history[every]["conv_thresholds_moved"]
        assert moved[:2] == [0, 0] and moved[2] >= 2
        assert history[every]["loss"][:2] == history[None]["loss"][:2]
    assert not [name for name in history[None] if "moved" in name]


def pairs(model):
    return {pair.path: pair.norm.name for pair in threshold_pairs(model)}


def functional(wire, shape=(4, 4, 8)):
    x = keras.Input(shape)
    return clip_model(keras.Model(x, wire(x)))


def test_which_layers():
    assert pairs(build()) == {"conv": "norm"}
    flat = keras.layers.Flatten

    def residual(x):
        y = batch_norm("norm_1")(conv("conv_1")(x))
        y = keras.layers.Add()([x, y])
        return last()(flat()(batch_norm("norm_2")(conv("conv_2")(y))))

    assert pairs(functional(residual)) == {"conv_2": "norm_2"}

    def two_readers(x):
        y = batch_norm("norm_1")(conv("conv_1")(x))
        a, b = conv("a")(y), conv("b", dilation_rate=2)(keras.layers.MaxPool2D(1)(y))
        return last()(flat()(keras.layers.Add()([a, b])))

    assert pairs(functional(two_readers)) == {"conv_1": "norm_1"}

    def bias_or_activation(x):
        y = batch_norm("norm_1")(conv("conv_1", use_bias=True)(x))
        y = batch_norm("norm_2")(conv("conv_2", activation="relu")(y))
        y = batch_norm("norm_3", center=False)(conv("conv_3")(y))
        y = batch_norm("norm_4", scale=False)(keras.layers.AvgPool2D(2)(conv("conv_4")(y)))
        y = lq.quantizers.SteSign()(y)
        y = batch_norm("norm_5")(conv("conv_5")(y))
        return keras.layers.Dense(3)(flat()(keras.layers.ReLU()(y)))

    assert pairs(functional(bias_or_activation)) == {"conv_4": "norm_4"}


def test_nested_models():
    inner = keras.Sequential([keras.layers.InputLayer((4, 4, 8)), conv("conv"), keras.layers.MaxPool2D(2)], "inner")
    tail = keras.Sequential(
        [keras.layers.InputLayer((2, 2, 8)), batch_norm("norm"), keras.layers.Flatten(), last()], "tail"
    )
    assert pairs(functional(lambda x: tail(inner(x)))) == {"inner/conv": "norm"}
    model = keras.Sequential([keras.layers.InputLayer((4, 4, 8)), inner, tail])
    assert pairs(clip_model(model)) == {"inner/conv": "norm"}


def test_without_gamma(rng):
    model = build(scale=False)
    norm = model.get_layer("norm")
    set_norm(norm, beta=np.full(8, 7.0), moving_mean=np.zeros(8), moving_variance=np.ones(8))
    assert project(norm, 2.5) == 8
    np.testing.assert_allclose(thresholds(norm), -2.5, rtol=1e-6)


def test_refusals(images, labels):
    with pytest.raises(ValueError, match="every is 'step'; accepted are 'epoch' and 'batch'"):
        ThresholdRange("step")
    model = build()
    model.get_layer("conv").accumulator_quantizer = None
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="has no AccumulatorClip"):
        model.fit(images[:, :4, :4], labels % 3, verbose=0, callbacks=[ThresholdRange()])
    model = clip_model(
        keras.Sequential([keras.layers.InputLayer((4, 4, 8)), conv("conv"), batch_norm("norm")], "plain")
    )
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no clipped layer of model 'plain' is followed by a batch norm"):
        model.fit(images[:, :4, :4], images[:, :4, :4], verbose=0, callbacks=[ThresholdRange()])
