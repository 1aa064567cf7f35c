"""Whole-model transforms: which layers are binary, the clipped copy, calibration, the switch."""

from __future__ import annotations

import numpy as np
import pytest

from larq_clip import arithmetic, layers
from larq_clip._keras import keras, lq, tf
from larq_clip.models import accumulator_clips, binary_layers, clip_model, set_clipping
from larq_clip.quantizers import AccumulatorClip

CLIPPED = ["conv_1", "conv_2", "dense"]


def names(found):
    return [layer.name for layer in found]


def steps(model):
    return {name: clip.step for name, clip in accumulator_clips(model).items()}


def predict(model, *inputs):
    return np.asarray(model([tf.constant(x) for x in inputs] if len(inputs) > 1 else tf.constant(inputs[0])))


def sign():
    return {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}


def single(layer, shape=(6, 6, 8)):
    return keras.Sequential([keras.layers.InputLayer(shape), layer], name="single")


# ---- Which layers are binary ----------------------------------------------------------------------------------------


def hand_written_sign(x):
    return tf.where(x < 0, -1.0, 1.0)


@pytest.mark.parametrize("quantizer", ["ste_sign", "approx_sign", "swish_sign", hand_written_sign])
def test_signs_are_binary(quantizer):
    layer = lq.layers.QuantConv2D(3, 3, input_quantizer=quantizer, kernel_quantizer=quantizer, name="conv")
    model = single(layer)
    assert binary_layers(model) == [layer]
    assert list(accumulator_clips(clip_model(model))) == ["conv"]


def heaviside_of_large(x):
    return tf.where(tf.abs(x) > 1e5, tf.zeros_like(x), tf.where(x < 0, -1.0, 1.0))


def scaled_sign_of_signs(x):
    return 0.5 * tf.where(x < 0, -1.0, 1.0) + tf.cast(x > 0.3, tf.float32)


@pytest.mark.parametrize(
    "quantizer",
    [
        "ste_tern",
        scaled_sign_of_signs,
        "fixed_point",
        None,
        tf.sign,  # 0 at 0
        heaviside_of_large,
        lq.quantizers.NoOp(precision=1),
        lq.quantizers.SteTern(threshold_value=1e-5),
        lq.quantizers.DoReFa(k_bit=4),
    ],
)
@pytest.mark.parametrize("place", ["input_quantizer", "kernel_quantizer"])
def test_what_produces_other_values_is_not_binary(quantizer, place):
    require_not_binary(quantizer, place)


@pytest.mark.parametrize("quantizer", ["ste_heaviside", "dorefa_quantizer", lq.quantizers.DoReFa(k_bit=1)])
def test_kernels_of_levels_are_not_binary(quantizer):
    require_not_binary(quantizer, "kernel_quantizer")


def upside_down(x):
    return 1 - lq.quantizers.DoReFa(2)(x)


@pytest.mark.parametrize("quantizer", [upside_down, lambda x: lq.quantizers.DoReFa(2)(x) / 2])
def test_inputs_that_are_no_levels_are_not_binary(quantizer):
    require_not_binary(quantizer, "input_quantizer")


def require_not_binary(quantizer, place):
    for layer in (lq.layers.QuantConv2D, layers.QuantDense):
        size = (4, 3) if layer is lq.layers.QuantConv2D else (4,)
        model = single(layer(*size, **{**sign(), place: quantizer}))
        assert binary_layers(model) == []
        with pytest.raises(ValueError, match="model 'single' has no binary layer"):
            clip_model(model)


def test_inputs_with_a_scale_are_not_binary():
    layer = lq.layers.QuantConv2D(4, 3, **{**sign(), "input_quantizer": "magnitude_aware_sign"}, name="conv")
    with pytest.raises(ValueError, match=r"'conv' \(MagnitudeAwareSign and .*\)"):
        clip_model(single(layer))


def test_one_bit_dorefa_weights_are_binary():
    weights = lq.quantizers.DoReFa(k_bit=1, mode="weights")
    assert binary_layers(single(lq.layers.QuantDense(4, input_quantizer="ste_sign", kernel_quantizer=weights)))


def test_the_layers_own_kernel_counts():
    def sign_but_for_seven(x):
        return tf.where(x == 7, tf.zeros_like(x), tf.where(x < 0, -1.0, 1.0))

    layer = lq.layers.QuantDense(4, input_quantizer="ste_sign", kernel_quantizer=sign_but_for_seven)
    model = single(layer)
    assert binary_layers(model) == [layer]
    layer.set_weights([np.full_like(w, 7) for w in layer.get_weights()])
    assert binary_layers(model) == []


def test_small_kernels_are_probed_completely():
    layer = lq.layers.QuantConv2D(1, 1, input_quantizer="ste_sign", kernel_quantizer="ste_tern")
    model = single(layer, (2, 2, 1))
    layer.set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    assert binary_layers(model) == []


def test_asking_leaves_metrics_alone():
    with lq.context.metrics_scope(["flip_ratio"]):
        layer = lq.layers.QuantDense(4, input_quantizer="ste_sign", kernel_quantizer="ste_sign")
    model = single(layer)
    before = [w.numpy().tolist() for m in layer.metrics + model.metrics for w in m.variables]
    assert binary_layers(model) == [layer]
    assert [w.numpy().tolist() for m in layer.metrics + model.metrics for w in m.variables] == before


# ---- The copy -------------------------------------------------------------------------------------------------------


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


# ---- Restricting ----------------------------------------------------------------------------------------------------


def test_restricted_to_layers(build_network):
    model = build_network()
    copy = clip_model(model, layers=["conv_2", model.get_layer("dense")])
    assert list(accumulator_clips(copy)) == ["conv_2", "dense"]
    assert type(copy.get_layer("conv_1")) is lq.layers.QuantConv2D
    again = clip_model(copy, bits=4)  # clips what is left, and keeps the others
    assert [clip.bits for clip in accumulator_clips(again).values()] == [4, 8, 8]
    with pytest.raises(ValueError, match="all binary layers of model 'network' have an accumulator_quantizer already"):
        clip_model(again)
    with pytest.raises(ValueError, match="layer 'conv_2' has an accumulator_quantizer already"):
        clip_model(copy, layers=["conv_2"])


@pytest.mark.parametrize(
    "layers_, message",
    [
        (["conv_9"], r"layers holds 'conv_9', which is not in model 'network'; its layers are \['conv_1'"),
        ([lq.layers.QuantDense(1, name="stranger")], "layers holds the layer 'stranger', which is not in model"),
        (["norm_1"], r"'norm_1' \(BatchNormalization\) is not a binary .* binary are \['conv_1', 'conv_2', 'dense'\]"),
        ([], "layers is empty"),
    ],
)
def test_wrong_layers_are_refused(build_network, layers_, message):
    with pytest.raises(ValueError, match=message):
        clip_model(build_network(), layers=layers_)


def test_a_bare_name_is_refused(build_network):
    with pytest.raises(TypeError, match="layers is 'conv_1'; accepted is a list"):
        clip_model(build_network(), layers="conv_1")


def test_binary_layers_of_other_kinds_are_not_skipped_silently():
    class MyDense(lq.layers.QuantDense):
        pass

    def model_with(layer):
        x = keras.Input((4, 8))
        y = layer(x)
        return keras.Model(x, lq.layers.QuantDense(3, **sign(), name="fine")(y))

    for layer, message in (
        (lq.layers.QuantConv1D(8, 3, **sign(), name="odd"), "'odd' is a binary QuantConv1D, which cannot be clipped"),
        (MyDense(8, **sign(), name="odd"), "layer 'odd' is a binary MyDense"),
        (
            keras.layers.TimeDistributed(lq.layers.QuantDense(8, **sign(), name="core"), name="odd"),
            r"layer 'odd' \(TimeDistributed\) wraps the binary QuantDense 'core'",
        ),
    ):
        model = model_with(layer)
        with pytest.raises(ValueError, match=message):
            clip_model(model)
        if type(layer) is not MyDense:  # which Keras cannot copy, being a local class
            assert list(accumulator_clips(clip_model(model, layers=["fine"]))) == ["fine"]


# ---- What is refused ------------------------------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.QuantDense(3, **sign(), accumulator_quantizer="accumulator_clip", name="own")

    def call(self, inputs):
        return self.dense(inputs)


def test_subclassed_models_are_refused_but_can_be_switched():
    model = Subclassed(name="mine")
    model(tf.ones((1, 4)))
    with pytest.raises(ValueError, match=r"model 'mine' is a subclassed model \(Subclassed\).*functional"):
        clip_model(model)
    set_clipping(model, False)
    assert not model.dense.accumulator_quantizer.enabled


def test_nested_subclassed_models_are_named():
    x = keras.Input((4,))
    model = keras.Model(x, lq.layers.QuantDense(3, **sign())(Subclassed(name="mine")(x)), name="outer")
    for transform in (clip_model, binary_layers):
        with pytest.raises(ValueError, match="model 'outer/mine' is a subclassed model"):
            transform(model)


@pytest.mark.parametrize("transform", [clip_model, binary_layers])
def test_what_is_no_model_is_refused(transform):
    with pytest.raises(TypeError, match="model is of type str"):
        transform("model.h5")


def test_switching_a_model_without_clips_is_refused(build_network):
    with pytest.raises(ValueError, match="model 'network' has no AccumulatorClip; make one .*clip_model"):
        set_clipping(build_network(), True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"bits": 1}, "bits is 1"),
        ({"step": 3}, "step is 3"),
        ({"step": "automatic"}, "step is 'automatic'; accepted are powers of two and 'auto'"),
        ({"step": "auto"}, "step='auto' needs calibration_data"),
        ({"step": 2, "calibration_data": np.zeros((1, 6, 6, 8))}, "calibration_data is given, but step is 2"),
        ({"step": "auto", "calibration_data": np.zeros((0, 6, 6, 8))}, "calibration_data is empty"),
        ({"step": "auto", "calibration_data": []}, "calibration_data is empty"),
        ({"step": "auto", "calibration_data": np.zeros((2, 6, 6, 9))}, r"shape \(2, 6, 6, 9\).*\(None, 6, 6, 8\)"),
        ({"step": "auto", "calibration_data": np.zeros((6, 6, 8))}, r"shape \(6, 6, 8\) for input 'image'"),
        ({"step": "auto", "calibration_data": np.full((1, 6, 6, 8), np.nan)}, "not finite"),
        ({"step": "auto", "calibration_data": np.full((1, 6, 6, 8), "x")}, "accepted are numbers"),
        ({"step": "auto", "calibration_data": {"pixels": np.zeros((1, 6, 6, 8))}}, r"has the inputs \['pixels'\]"),
        ({"step": "auto", "calibration_data": np.zeros((1, 6, 6, 8)), "percentile": 0}, "percentile is 0"),
        ({"step": "auto", "calibration_data": np.zeros((1, 6, 6, 8)), "percentile": 100.1}, "percentile is 100.1"),
    ],
)
def test_wrong_arguments_are_refused(build_network, arguments, message):
    with pytest.raises(ValueError, match=message):
        clip_model(build_network(), **arguments)


@pytest.mark.parametrize("data", ["images.npy", 3])
def test_calibration_data_of_no_accepted_kind(build_network, data):
    with pytest.raises(TypeError, match="calibration_data is of type"):
        clip_model(build_network(), step="auto", calibration_data=data)


# ---- Calibration ----------------------------------------------------------------------------------------------------


def expected_step(raw, bits, percentile):
    a = np.sort(np.abs(raw).ravel())
    needed = a[int(np.ceil(percentile / 100 * a.size)) - 1]
    step = 1 if np.any(raw % 2) else 2
    while step * arithmetic.clip_limit(bits) < needed:
        step *= 2
    return step


@pytest.mark.parametrize("arguments, step", [({}, 1), ({"percentile": 99.9}, 1), ({"percentile": 99.99}, 2)])
def test_auto_lets_one_accumulator_in_a_thousand_saturate(binary, arguments, step):
    images = np.ones((2000, 201), np.float32)
    images[1:, ::2] = -1  # the accumulator of the first image is 201, of all others -1
    layer = lq.layers.QuantDense(1, use_bias=False, kernel_initializer="ones", **binary)
    model = keras.Sequential([keras.layers.InputLayer(201), layer])
    (clip,) = accumulator_clips(clip_model(model, step="auto", calibration_data=images, **arguments)).values()
    assert clip.step == step


@pytest.mark.parametrize("bits, percentile", [(8, 99.99), (5, 99.99), (4, 100), (3, 50)])
def test_auto_is_the_smallest_step_that_covers_the_raw_accumulators(build_network, images, bits, percentile):
    model = build_network()
    raw = keras.Model(model.inputs, [model.get_layer(name).output for name in CLIPPED])(images)  # no bias, activation
    expected = {name: expected_step(a.numpy(), bits, percentile) for name, a in zip(CLIPPED, raw)}
    assert (max(expected.values()) > 2) == (bits < 8)
    copy = clip_model(model, bits, "auto", calibration_data=images, percentile=percentile)
    assert steps(copy) == expected


def test_auto_ignores_bias_and_activation():
    layer = lq.layers.QuantDense(
        2, **sign(), bias_initializer=keras.initializers.Constant(1e6), activation="relu", name="dense"
    )
    model = single(layer, (100,))
    layer.set_weights([-np.ones((100, 2)), np.full(2, 1e6)])
    assert steps(clip_model(model, 4, "auto", calibration_data=np.ones((3, 100)))) == {"dense": 16}  # 100 / 7
    assert steps(clip_model(model, 8, "auto", calibration_data=np.ones((3, 100)))) == {"dense": 2}  # even


def test_auto_accepts_every_kind_of_data(build_network, images, labels):
    model = build_network()
    expected = steps(clip_model(model, 4, "auto", calibration_data=images))
    assert min(expected.values()) > 1

    class Sequence(keras.utils.Sequence):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return images[8 * index : 8 * index + 8], labels[8 * index : 8 * index + 8]

    data = tf.data.Dataset.from_tensor_slices((images, labels))
    for calibration_data in (
        tf.constant(images),
        {"image": images},
        images.astype(np.float64),
        data.batch(5),
        data.map(lambda x, y: x).batch(16),
        data.map(lambda x, y: (x, y, 1.0)).batch(16),
        Sequence(),
        (images[i : i + 4] for i in range(0, 16, 4)),
        [images],
    ):
        copy = clip_model(model, 4, "auto", calibration_data=calibration_data)
        assert steps(copy) == expected


def test_auto_leaves_the_original_as_it_is(build_network, images):
    model = build_network()
    before = model.get_weights()
    copy = clip_model(model, 4, "auto", calibration_data=images, layers=["dense"])
    assert list(steps(copy)) == ["dense"]
    for weight, old, new in zip(model.get_weights(), before, copy.get_weights()):
        np.testing.assert_array_equal(weight, old)
        np.testing.assert_array_equal(new, old)
    assert isinstance(copy.get_layer("dense").accumulator_quantizer, AccumulatorClip)
