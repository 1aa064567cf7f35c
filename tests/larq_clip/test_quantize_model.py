"""quantize_model: the quantized Keras model is the integer program, evaluated here in NumPy from image to logits."""

from __future__ import annotations

import numpy as np
import pytest

from larq_clip import arithmetic, layers
from larq_clip import fixed_point as fp
from larq_clip._keras import keras, lq, tf
from larq_clip.models import clip_model, quantize_model, set_clipping

L = keras.layers
SHAPE = (10, 10, 3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).normal(size=(24, *SHAPE)).astype(np.float32)


# ---- Models ---------------------------------------------------------------------------------------------------------


def binary(filters, name, **arguments):
    arguments = {"kernel_size": 3, "padding": "same", "use_bias": False, **arguments}
    return lq.layers.QuantConv2D(
        filters, name=name, input_quantizer="ste_sign", kernel_quantizer="ste_sign", **arguments
    )


def vgg():
    dense = lq.layers.QuantDense(
        16, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, name="dense"
    )
    stack = [
        L.InputLayer(SHAPE, name="image"),
        L.Conv2D(8, 3, name="stem"),
        L.BatchNormalization(name="stem_norm"),
        binary(16, "conv", pad_values=1.0),
        L.MaxPooling2D(2, name="pool"),
        L.BatchNormalization(name="norm"),
        L.Flatten(name="flatten"),
        dense,
        L.BatchNormalization(name="dense_norm"),
        L.Dense(5, name="classifier"),
        L.Softmax(name="softmax"),
    ]
    return keras.Sequential(stack, name="vgg")


def resnet():
    image = keras.Input(SHAPE, name="image")
    x = L.BatchNormalization(name="stem_norm")(L.Conv2D(8, 3, padding="same", name="stem")(image))
    for block, (filters, strides) in enumerate([(8, 1), (16, 2), (16, 1)]):
        shortcut = x
        if strides == 2:
            shortcut = L.AveragePooling2D(2, name="shortcut_pool")(shortcut)
            shortcut = L.Conv2D(filters, 1, use_bias=False, name="shortcut_conv")(shortcut)
            shortcut = L.BatchNormalization(name="shortcut_norm")(shortcut)
        y = binary(filters, f"conv_{block}", strides=strides, activation="relu" if block == 2 else None)(x)
        y = L.BatchNormalization(name=f"norm_{block}")(y)
        x = y + shortcut if block == 0 else L.Add(name=f"add_{block}")([shortcut, y])
    x = L.GlobalAveragePooling2D(name="mean")(L.Activation("relu", name="relu")(x))
    return keras.Model(image, L.Dense(5, name="classifier")(x), name="resnet")


def densenet():
    image = keras.Input(SHAPE, name="image")
    x = L.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = L.ReLU(name="stem_relu")(L.BatchNormalization(name="stem_norm")(x))
    for block in range(3):
        y = binary(8, f"conv_{block}")(L.BatchNormalization(name=f"norm_{block}")(x))
        x = tf.concat([x, y], axis=-1) if block == 1 else L.Concatenate(name=f"join_{block}")([x, y])
        if block == 0:
            x = L.MaxPooling2D(2, strides=1, name="pool")(L.BatchNormalization(name="transition_norm")(x))
            x = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="blur")(x)
            x = L.Conv2D(8, 1, use_bias=False, name="transition")(x)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="last_norm")(x))
    x = L.Dense(5, name="classifier")(L.Reshape((-1,), name="flat")(L.MaxPooling2D(2, name="last_pool")(x)))
    return keras.Model(image, x, name="densenet")


MODELS = {make.__name__: make for make in (vgg, resnet, densenet)}


def trained(make):
    """Weights as if trained: batch norms that fit their inputs, and affine variables with both signs."""
    keras.utils.set_random_seed(7)
    rng = np.random.default_rng(11)
    model = make()
    images = rng.normal(size=(32, *SHAPE)).astype(np.float32)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            gamma, beta, *rest = layer.get_weights()
            sign = rng.choice([-1, 1], gamma.shape)
            layer.set_weights([sign * rng.uniform(0.5, 1.5, gamma.shape), rng.normal(0, 0.3, beta.shape), *rest])
    return model


@pytest.fixture(scope="module")
def clipped(images):
    return {name: clip_model(trained(make), step="auto", calibration_data=images) for name, make in MODELS.items()}


# ---- The integer program in NumPy -----------------------------------------------------------------------------------

POINT = 36  # fraction bits of the exact tensors here, as int64


def as_integers(x):
    q = np.ldexp(x, POINT)
    assert np.all(q == np.floor(q)) and np.abs(q).max(initial=0) < 2**62, "not a fixed-point tensor"
    return q.astype(np.int64)


def windows(layer, x):
    size = layer.pool_size if hasattr(layer, "pool_size") else layer.kernel_size
    dilation = getattr(layer, "dilation_rate", (1, 1))
    return tuple(
        arithmetic.window_axis(x.shape[1 + i], size[i], layer.strides[i], dilation[i], layer.padding) for i in (0, 1)
    )


def binary_values(layer, x):
    clip = layer.accumulator_quantizer
    with lq.context.quantized_scope(False):
        kernel = layer.kernel.numpy()
    if kernel.ndim == 2:
        x, kernel = x[:, None, None], kernel[None, None]
        axes = (arithmetic.window_axis(1, 1), arithmetic.window_axis(1, 1))
    else:
        axes = windows(layer, x)
    w_bits = arithmetic.sign_bits(np.moveaxis(kernel, -1, 0))
    a = arithmetic.binary_conv2d(arithmetic.sign_bits(x), w_bits, axes, int(getattr(layer, "pad_values", 0)))
    y = clip.step * arithmetic.clip_accumulator(a, clip.bits, clip.step).astype(np.float64)
    y = np.maximum(y, 0) if layer.activation.__name__ == "relu" else y
    return y[:, 0, 0] if layer.kernel.shape.rank == 2 else y


def int8_values(layer, x):
    q = fp.store_reals(x, layer.input_fraction_bits)
    kernel, bias = layer.integers()
    if isinstance(layer, L.Dense):
        weights, axes = kernel.weights.T[:, None, None], (arithmetic.window_axis(1, 1),) * 2
        y = fp.int8_conv2d(q[:, None, None], kernel._replace(weights=weights), bias, axes)
        return fp.values(*y)[:, 0, 0]
    if isinstance(layer, L.DepthwiseConv2D):
        weights = kernel.weights.reshape(*kernel.weights.shape[:2], 1, -1)
    else:
        weights = kernel.weights
    groups = x.shape[-1] // weights.shape[2]
    kernel = kernel._replace(weights=np.moveaxis(weights, -1, 0))
    return fp.values(*fp.int8_conv2d(q, kernel, bias, windows(layer, x), groups))


def reference(layer, inputs):
    """A layer's output in integer arithmetic; the tensors are float64 that hold fixed-point numbers."""
    x = inputs[0]
    if isinstance(layer, layers.StorageQuantizer):
        return fp.values(fp.store_reals(x, layer.fraction_bits, layer.bits), layer.fraction_bits)
    if isinstance(layer, (layers.QuantConv2D, layers.QuantDense)):
        return binary_values(layer, x)
    if isinstance(layer, (layers.Int8Conv2D, layers.Int8DepthwiseConv2D, layers.Int8Dense)):
        return int8_values(layer, x)
    if isinstance(layer, layers.FixedPointBatchNormalization):
        y, bits = fp.affine(as_integers(x) >> 12, layer.integers(), POINT - 12)
        assert np.all(as_integers(x) % 2**12 == 0)
        return fp.values(y, bits)
    if isinstance(layer, layers.Add):
        return fp.values(sum(map(as_integers, inputs)), POINT)
    if isinstance(layer, layers.Concatenate):
        return np.concatenate(inputs, axis=-1)
    if isinstance(layer, L.MaxPooling2D):
        return arithmetic.window_reduce(x, windows(layer, x), np.maximum, np.full((), -np.inf))
    if isinstance(layer, L.AveragePooling2D):
        assert layer.padding == "valid"
        return arithmetic.window_reduce(x, windows(layer, x), np.add, np.zeros(())) / np.prod(layer.pool_size)
    if isinstance(layer, L.GlobalAveragePooling2D):
        return x.sum((1, 2)) / np.prod(x.shape[1:3])
    if isinstance(layer, (L.Flatten, L.Reshape)):
        return x.reshape(x.shape[0], -1)
    if isinstance(layer, (L.ReLU, L.Activation)):
        return np.maximum(x, 0)
    raise AssertionError(f"no reference for {type(layer).__name__}")


def evaluate(model, images):
    """All tensors of the model, by the name of the layer, from the image on."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, L.Softmax):
            continue
        if isinstance(layer, L.InputLayer):
            found[layer.name] = images.astype(np.float64)
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        sources = [found.get(tensor.node.layer.name, images.astype(np.float64)) for tensor in inputs]
        found[layer.name] = reference(layer, sources)
    return found


@pytest.mark.parametrize(
    "arguments",
    [{}, {"residual_bits": 16, "variables": "paper"}, {"granularity": "tensor", "percentile": 99}],
    ids=["int8", "int16-paper", "tensor"],
)
@pytest.mark.parametrize("name", MODELS)
def test_forward_is_the_integer_program(clipped, images, name, arguments):
    model = quantize_model(clipped[name], images, **arguments)
    expected = evaluate(model, images)
    inner = [layer for layer in model.layers if not isinstance(layer, (L.InputLayer, L.Softmax))]
    found = keras.Model(model.inputs, [layer.output for layer in inner])(images)
    for layer, y in zip(inner, found):
        np.testing.assert_array_equal(y, expected[layer.name], err_msg=layer.name)


# ---- What the copy is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_names_and_weights_stay(clipped, images, name):
    model = quantize_model(clipped[name], images)
    assert type(model) is type(clipped[name]) and model.name == name
    for layer in clipped[name].layers:
        for ours, theirs in zip(model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(model.weights) == len(clipped[name].weights)
    kinds = {layer.name: type(layer).__name__ for layer in model.layers}
    assert kinds["stem"] == "Int8Conv2D" and kinds["classifier"] == "Int8Dense"
    assert "BatchNormalization" not in kinds.values()


def test_where_a_resnet_stores(clipped, images):
    model = quantize_model(clipped["resnet"], images)
    sources = {
        layer.name: [tensor.node.layer.name for tensor in tf.nest.flatten(layer.input)] for layer in model.layers[1:]
    }
    # Keras numbers the names of operators through the whole process.
    total = next(layer.name for layer in clipped["resnet"].layers if layer.name.startswith("tf.__operators__.add"))
    assert isinstance(model.get_layer(total), layers.Add)
    assert sources[total] == ["norm_0", "stem_norm_int8"]
    assert sources["conv_0"] == ["stem_norm"] and sources["conv_1"] == [total]  # signs come from exact sums
    assert sources["shortcut_pool"] == [f"{total}_int8"]
    assert sources["shortcut_conv"] == ["shortcut_pool_int8"]
    assert sources["add_1"] == ["shortcut_norm_int8", "norm_1"]
    assert sources["mean"] == ["relu_int8"] and sources["classifier"] == ["mean_int8"]
    stored = model.get_layer("add_1_int8")
    assert stored.bits == 8 and len(stored.fraction_bits) == 16
    assert quantize_model(clipped["resnet"], images, residual_bits=16).get_layer("add_1_int16").bits == 16


def test_formats_are_those_of_the_percentile(clipped, images):
    model = clipped["resnet"]
    y = np.abs(keras.Model(model.inputs, model.get_layer("add_1").output)(images)).reshape(-1, 16)
    for percentile in (100, 90):
        stored = quantize_model(model, images, percentile=percentile).get_layer("add_1_int8")
        for c in range(16):
            range_of_c = 2.0 ** (7 - stored.fraction_bits[c])
            assert np.mean(y[:, c] <= range_of_c) >= percentile / 100 > np.mean(y[:, c] <= range_of_c / 2)
    one = quantize_model(model, images, percentile=100, granularity="tensor").get_layer("add_1_int8").fraction_bits
    assert one == 7 - np.ceil(np.log2(y.max()))


def test_clipped_accumulators_are_joined_as_they_are(clipped, images):
    model = quantize_model(clipped["densenet"], images)
    assert "conv_0_int8" not in [layer.name for layer in model.layers]
    step = clipped["densenet"].get_layer("conv_2").accumulator_quantizer.step
    last = model.get_layer("join_2")
    assert last.fraction_bits is None and step >= 1


def test_float_layers_stay_float(clipped, images):
    model = quantize_model(clipped["resnet"], images, float_layers="float32")
    kinds = {layer.name: type(layer).__name__ for layer in model.layers}
    floats = {"stem": "Conv2D", "stem_norm": "BatchNormalization", "shortcut_norm": "BatchNormalization"}
    assert {name: kinds[name] for name in floats} == floats
    assert kinds["norm_0"] == "FixedPointBatchNormalization" and kinds["classifier"] == "Dense"
    assert "image_int8" not in kinds and "stem_norm_int8" in kinds
    expected = clipped["resnet"](images).numpy()
    assert np.abs(model(images) - expected).max() < np.abs(expected).max()


@pytest.mark.parametrize("float_layers", ["int8", "float32"])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_close_to_the_float_model(clipped, images, name, float_layers):
    model, report = quantize_model(clipped[name], images, float_layers=float_layers, residual_bits=16, report=True)
    rows = {row.layer: row for row in report}
    assert set(rows) == {layer.name for layer in model.layers} - {"image", "softmax"}
    assert rows["stem"].snr_db > 25
    flipped = {row.layer: row.flipped_signs for row in report if row.flipped_signs is not None}
    assert set(flipped) == {layer.name for layer in model.layers if hasattr(layer, "accumulator_quantizer")}
    assert all(share < 0.05 for share in flipped.values())
    assert rows[report[-1].layer].snr_db > 10


def test_the_report_counts(clipped, images):
    model, report = quantize_model(clipped["resnet"], images, report=True)
    rows = {row.layer: row for row in report}
    assert rows["add_1_int8"].format.startswith("int8, fraction bits")
    bits = model.get_layer("norm_1").fraction_bits
    assert rows["norm_1"].format == f"int16, fraction bits {min(bits)} to {max(bits)}"

    def tensors(of, name):
        layer = of.get_layer(name)
        return [np.asarray(t, np.float64) for t in keras.Model(of.inputs, [layer.input, layer.output])(images)]

    for name in ("conv_0", "conv_2"):
        (x, y), (seen, found) = tensors(clipped["resnet"], name), tensors(model, name)
        assert rows[name].flipped_signs == pytest.approx(np.mean((x < 0) != (seen < 0)))
        noise = np.sum((y - found) ** 2)
        expected = np.inf if noise == 0 else 10 * np.log10(np.sum(y**2) / noise)
        assert rows[name].snr_db == pytest.approx(expected)


def test_it_trains(clipped, images):
    model = quantize_model(clipped["resnet"], images)
    before = {w.name: w.numpy() for w in model.trainable_variables}
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit(images, np.arange(24) % 5, epochs=4, batch_size=12, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    still = [w.name for w in model.trainable_variables if np.array_equal(w.numpy(), before[w.name])]
    assert still == []


def test_it_trains_on_batches_of_unknown_shape(clipped, images):
    """As those of a keras.utils.Sequence: Keras traces with no axis known."""

    class Batches(keras.utils.Sequence):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return images[8 * index : 8 * index + 8], np.zeros(8, np.int64)

    quantized = quantize_model(clipped["resnet"], images)
    quantized.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = quantized.get_weights()
    assert np.isfinite(quantized.fit(Batches(), verbose=0).history["loss"][0])
    assert any(not np.array_equal(a, b) for a, b in zip(before, quantized.get_weights()))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_saved_and_loaded(clipped, images, tmp_path, suffix):
    model = quantize_model(clipped["resnet"], images)
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}", compile=False)
    np.testing.assert_array_equal(loaded(images), model(images))


def test_weights_of_the_clipped_model_load_by_name(clipped, images, tmp_path):
    model = quantize_model(clipped["densenet"], images)
    expected = model(images).numpy()
    clipped["densenet"].save_weights(tmp_path / "weights.h5")
    for layer in model.layers:
        layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    model.load_weights(tmp_path / "weights.h5", by_name=True)
    np.testing.assert_array_equal(model(images), expected)


# ---- Errors ---------------------------------------------------------------------------------------------------------


def small(*stack, final=True):
    image = keras.Input(SHAPE, name="image")
    x = image
    for layer in (binary(8, "conv"), *stack, *([binary(8, "last")] if final else [])):
        x = layer(x)
    return trained(lambda: keras.Model(image, x, name="small"))


def clip_small(*stack, **arguments):
    return clip_model(small(*stack, **arguments))


def norm():
    return L.BatchNormalization(name="norm")


def without_statistics():
    model = clip_small(norm())
    model.get_layer("norm").set_weights([np.ones(8), np.zeros(8), np.zeros(8), np.ones(8)])
    return model


def not_finite():
    model = clip_small(norm())
    weights = model.get_layer("norm").get_weights()
    weights[0][3] = np.nan
    model.get_layer("norm").set_weights(weights)
    return model


def switched_off():
    model = clip_small(norm())
    set_clipping(model, False)
    return model


def constant_sum():
    image = keras.Input(SHAPE)
    return clip_model(keras.Model(image, binary(8, "conv")(image) + 1.0))


def fixed_already():
    return quantize_model(clip_small(norm()), np.zeros((1, *SHAPE), np.float32))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: small(norm()), "binary layer '(conv|last)' has no AccumulatorClip: clip before you quantize"),
        (switched_off, "the clip of binary layer '(conv|last)' is off"),
        (without_statistics, "batch norm 'norm' has no statistics"),
        (not_finite, "batch norm 'norm' has variables that are not finite"),
        (lambda: clip_small(L.UpSampling2D(2, name="up")), r"layer 'up' \(UpSampling2D\) cannot be quantized"),
        (lambda: clip_small(L.Lambda(tf.abs, name="any")), r"layer 'any' \(Lambda\) cannot .* code is none of those"),
        (lambda: clip_small(keras.Sequential([norm()], name="inner")), "layer 'inner' .* it is a nested model"),
        (constant_sum, "it has an operand that is no tensor of the model"),
        (fixed_already, r"layer '.*' \(.*\) cannot be quantized: it is in fixed point already"),
        (lambda: keras.Sequential([L.InputLayer(SHAPE), L.Conv2D(2, 1)], name="none"), "'none' has no binary layer"),
    ],
)
def test_models_that_cannot_be_quantized(images, make, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(make(), images)


def test_a_bias_is_refused_where_integers_are_needed(images):
    with_bias = binary(8, "biased", use_bias=True, bias_initializer="ones")
    image = keras.Input(SHAPE)
    x = binary(8, "conv")(image)
    model = clip_model(keras.Model(image, L.Add()([x, with_bias(x)])))
    with pytest.raises(ValueError, match="layer 'biased' .* its bias moves the output off the integers"):
        quantize_model(model, images)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"residual_bits": 12}, "residual_bits is 12; accepted are 8 and 16"),
        ({"float_layers": "bfloat16"}, "float_layers is 'bfloat16'; accepted are 'int8' and 'float32'"),
        ({"variables": "none"}, "variables is 'none'"),
        ({"granularity": "row"}, "granularity is 'row'"),
        ({"percentile": 0}, "percentile is 0"),
        ({"calibration_data": np.zeros((0, *SHAPE))}, "calibration_data is empty"),
        ({"calibration_data": []}, "calibration_data is empty"),
        ({"calibration_data": None}, "calibration_data is None"),
        ({"calibration_data": np.zeros((2, 4, 4, 3))}, r"accepted is \(None, 10, 10, 3\)"),
    ],
)
def test_wrong_arguments(clipped, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(clipped["vgg"], **{"calibration_data": images, **arguments})
