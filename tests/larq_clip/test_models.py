"""The clipped copy of a model: its weights, names and predictions, and the switch."""

from __future__ import annotations

import numpy as np
import pytest
from clip_support import CLIPPED, names, predict, sign, steps

from larq_clip import arithmetic
from larq_clip._keras import keras, lq, tf
from larq_clip.models import accumulator_clips, binary_layers, clip_model, set_clipping


def test_copy_has_the_same_names_weights_and_predictions(build_network, images):
    model = build_network()
    copy = clip_model(model, bits=4, step=2)
    assert names(copy.layers) == names(model.layers) and copy.name == model.name
    assert [w.name for w in copy.weights] == [w.name for w in model.weights]
    for ours, theirs in zip(copy.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    assert names(layer for layer in copy.layers if type(layer).__module__ == "larq_clip.layers") == CLIPPED
    assert [(clip.bits, clip.step) for clip in accumulator_clips(copy).values()] == [(4, 2)] * 3
    clipped = predict(copy, images)
    assert np.any(clipped != predict(model, images))
    set_clipping(copy, False)
    np.testing.assert_array_equal(predict(copy, images), predict(model, images))
    set_clipping(copy, True)
    np.testing.assert_array_equal(predict(copy, images), clipped)


def test_copy_clips_exactly(build_network, images):
    model = build_network()
    copy = clip_model(model, bits=5, step=2)
    conv = copy.get_layer("conv_2")
    taps = keras.Model(copy.inputs, [conv.input, conv.output])
    x, clipped = (t.numpy() for t in taps(images))
    raw = model.get_layer("conv_2")(x).numpy()
    np.testing.assert_array_equal(clipped, arithmetic.clip_accumulator(raw.astype(int), 5, 2) * 2)
    assert np.any(raw != clipped)


def test_copy_is_independent_and_not_compiled(build_network, images, labels):
    model = build_network()
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.get_weights()
    copy = clip_model(model)
    assert copy.optimizer is None
    copy.compile("adam", "sparse_categorical_crossentropy")
    copy.fit(images, labels, verbose=0)
    for weight, old in zip(model.get_weights(), before):
        np.testing.assert_array_equal(weight, old)
    assert any(np.any(a != b) for a, b in zip(copy.get_weights(), before))


def test_trainable_flags_and_metrics_are_copied(build_network):
    with lq.context.metrics_scope(["flip_ratio"]):
        model = build_network()
    model.get_layer("norm_1").trainable = False
    model.get_layer("conv_2").trainable = False
    copy = clip_model(model)
    assert [layer.trainable for layer in copy.layers] == [layer.trainable for layer in model.layers]
    assert copy.get_layer("conv_1").kernel_quantizer._custom_metrics == ["flip_ratio"]
    inner = keras.Sequential([keras.layers.InputLayer((4,)), keras.layers.Dense(4), keras.layers.Dense(3)], name="in")
    inner.trainable = False
    inner.layers[1].trainable = True
    outer = keras.Sequential([keras.layers.InputLayer((4,)), inner, lq.layers.QuantDense(3, **sign())])
    copied = clip_model(outer).get_layer("in")
    assert (copied.trainable, *(layer.trainable for layer in copied.layers)) == (False, False, True)


def test_weights_of_the_unclipped_model_load_by_order_and_by_name(build_network, images, tmp_path):
    model = build_network()
    for weight in model.weights:
        weight.assign(weight + 0.01)
    model.save_weights(tmp_path / "weights.h5")
    expected = predict(clip_model(model, bits=4), images)
    for by_name in (False, True):
        clipped = clip_model(build_network(), bits=4)
        assert np.any(predict(clipped, images) != expected)  # built, so that the clip has its variables
        clipped.load_weights(tmp_path / "weights.h5", by_name=by_name)
        np.testing.assert_array_equal(predict(clipped, images), expected)


def test_checkpoints_are_exchanged_with_the_unclipped_model(build_network, images, tmp_path):
    model = build_network()
    clipped = clip_model(model, bits=4)
    expected = predict(clipped, images)
    for weight in clipped.weights:
        weight.assign(weight * 0)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=clipped).restore(path).assert_consumed()
    np.testing.assert_array_equal(predict(clipped, images), expected)


def test_clone_model_copies_clips(build_network, images):
    clipped = clip_model(build_network(), bits=4, step=2)
    set_clipping(clipped, False)
    clone = keras.models.clone_model(clipped)
    clone.set_weights(clipped.get_weights())
    assert [clip.get_config()["enabled"] for clip in accumulator_clips(clone).values()] == [False] * 3
    np.testing.assert_array_equal(predict(clone, images), predict(clipped, images))
    set_clipping(clone, True)
    assert np.any(predict(clone, images) != predict(clipped, images))


def test_shared_layers_several_inputs_and_outputs():
    shared = lq.layers.QuantDense(6, **sign(), name="shared")
    a, b = keras.Input((20,), name="a"), keras.Input((20,), name="b")
    left, right = shared(a), shared(b)
    joined = keras.layers.Add(name="add")([left, right])
    out = lq.layers.QuantDense(3, **sign(), name="out")(joined)
    model = keras.Model([a, b], [out, left], name="two")
    copy = clip_model(model, bits=3)
    assert names(binary_layers(copy)) == ["shared", "out"]
    assert len(copy.weights) == len(model.weights) == 4
    x = [np.random.default_rng(i).standard_normal((5, 20)).astype(np.float32) for i in range(2)]
    clip = arithmetic.clip_accumulator
    kernel, bias, kernel_2, bias_2 = model.get_weights()
    s = [clip(np.where(t < 0, -1, 1) @ np.where(kernel < 0, -1, 1), 3) for t in x]
    o = clip(np.where(s[0] + s[1] < 0, -1, 1) @ np.where(kernel_2 < 0, -1, 1), 3)
    got = copy([tf.constant(t) for t in x])
    np.testing.assert_array_equal(got[0], o + bias_2)
    np.testing.assert_array_equal(got[1], s[0] + bias)
    x[1][:, :] = np.where(kernel[:, 0] < 0, -1, 1)  # one accumulator of the second call is 20
    for data in ({"a": x[0], "b": x[1]}, [[x[0], x[1]], ([x[0], x[1]], None)]):
        assert steps(clip_model(model, 3, "auto", calibration_data=data))["shared"] == 8


def nested():
    inner_in = keras.Input((20,))
    inner = keras.Model(inner_in, lq.layers.QuantDense(20, **sign(), name="dense")(inner_in), name="inner")
    last = lq.layers.QuantDense(4, **sign(), name="dense")
    tail = keras.Sequential([keras.layers.InputLayer((20,)), last], name="tail")
    x = keras.Input((20,))
    return keras.Model(x, tail(inner(inner(x))), name="outer")


def test_nested_models(rng):
    model = nested()
    x = rng.standard_normal((6, 20)).astype(np.float32)
    copy = clip_model(model, bits=3)
    assert list(accumulator_clips(copy)) == ["inner/dense", "tail/dense"]
    assert len(copy.weights) == 4 and names(copy.layers) == names(model.layers)
    assert np.any(predict(copy, x) != predict(model, x))
    set_clipping(copy, False)
    np.testing.assert_array_equal(predict(copy, x), predict(model, x))
    only = clip_model(model, bits=3, layers=["tail/dense"])
    assert list(accumulator_clips(only)) == ["tail/dense"]
    assert np.abs(predict(only, x)).max() <= 3
    by_object = clip_model(model, layers=[model.get_layer("inner").get_layer("dense")])
    assert list(accumulator_clips(by_object)) == ["inner/dense"]


def test_sequential_model_built_by_a_call(rng):
    x = rng.standard_normal((4, 30)).astype(np.float32)
    model = keras.Sequential([lq.layers.QuantDense(5, **sign(), name="dense")])
    with pytest.raises(ValueError, match="is not built"):
        clip_model(model)
    expected = predict(model, x)
    copy = clip_model(model, bits=2)
    assert np.abs(predict(copy, x)).max() <= 1
    set_clipping(copy, False)
    np.testing.assert_array_equal(predict(copy, x), expected)
