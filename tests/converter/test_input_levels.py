"""Clipped layers whose inputs are levels m / n: bit planes whose integer sums are clipped where they are stored."""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import ops_of
from fixed_point_support import SHAPE, check, images, quantized

from larq_clip.converter import ir, keras_importer, pipeline, verify_keras_model, writer
from larq_clip.converter.ir import DType, Epilogue
from larq_clip.errors import ConversionError
from larq_clip.interpreter import Interpreter


def levels(bits):
    from larq_clip._keras import lq

    return lq.quantizers.DoReFa(bits)


def binary(kind, size, bits, name, scaled=False, **arguments):
    from larq_clip._keras import lq

    quantizers = {
        "input_quantizer": levels(bits) if bits else "ste_heaviside",
        "kernel_quantizer": "magnitude_aware_sign" if scaled else "ste_sign",
    }
    layer = lq.layers.QuantDense if kind == "dense" else lq.layers.QuantConv2D
    return layer(*size, use_bias=False, name=name, **quantizers, **arguments)


def levelnet():
    """Inputs of 1, 2 and 3 bits: of a stem, of sums that others read too, behind norms, a pool, relu6, a flattening."""
    from larq_clip._keras import keras

    layers, same = keras.layers, {"padding": "same"}
    image = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(image)
    y = binary("conv", (8, 3), 2, "conv_0", scaled=True, **same)(x)
    x = layers.Add(name="add_0")([layers.BatchNormalization(name="norm_0")(y), x])
    y = binary("conv", (8, 3), 3, "conv_1", pad_values=1.0, activation="relu", **same)(x)
    x = layers.Add(name="add_1")([x, layers.BatchNormalization(name="norm_1")(y)])
    x = binary("conv", (12, 3), 2, "conv_2", strides=1)(layers.BatchNormalization(name="norm_2")(x))
    x = layers.MaxPooling2D(2, name="pool")(layers.BatchNormalization(name="norm_3")(x))
    x = binary("conv", (12, 2), 3, "conv_3", scaled=True)(layers.ReLU(6.0, name="relu6")(x))
    x = layers.Flatten(name="flatten")(layers.BatchNormalization(name="norm_4")(x))
    x = layers.BatchNormalization(name="norm_5")(binary("dense", (10,), 2, "dense")(x))
    x = layers.BatchNormalization(name="norm_6")(binary("dense", (9,), 0, "dense_2")(x))
    x = layers.BatchNormalization(name="norm_7")(binary("dense", (7,), 1, "dense_3", scaled=True)(x))
    return keras.Model(image, layers.Dense(5, name="classifier")(x), name="levelnet")


@pytest.fixture(scope="module")
def model():
    return quantized(levelnet)


def test_quantized_models_of_levels_are_exact(model):
    from larq_clip.models import binary_layers

    assert [layer.input_levels for layer in binary_layers(model)] == [3, 7, 3, 7, 3, 1, 1]
    lowered = check(model, images())
    assert {t.name for t in lowered.tensors.values() if t.dtype is DType.FLOAT32} == {"image", *lowered.outputs}
    readers = {op.outputs[0].split(":")[0]: op for op in ops_of(lowered, ir.Bitpack)}
    # Norms, pools and relu6 are thresholds of the clipped accumulator, or of the stored sum, in 8 bits.
    assert {op.thresholds.dtype for op in readers.values()} == {np.dtype(np.int8)}
    for name, source in {"conv_2": "add_1_int8", "conv_3": "pool", "dense": "conv_3:clipped"}.items():
        assert source in readers[name].input, readers[name]
    # One bit is a sign: it is taken where the accumulator is computed.
    (dense_2,) = [op for op in ops_of(lowered, ir.BinaryConv2D) if op.input.startswith("dense_2:input")]
    assert dense_2.epilogue is Epilogue.FIXED_POINT and len(readers["dense_2"].outputs) == 1
    # Some norms in front of the pool fall, so that the largest of them is the smallest accumulator.
    assert any(op.name == "pool:negated" for op in lowered.ops)


def test_every_layer_is_verified(model):
    data = writer.write(pipeline.lower(keras_importer.import_model(model)))
    verified = verify_keras_model(model, data, images(2)).require()
    assert {f"{name}:clipped" for name in ("conv_0", "conv_1", "conv_2", "conv_3", "dense")} <= set(verified.tensors)
    assert not verified.flipped and set(verified.tensors.values()) == {0.0}


@pytest.mark.parametrize("name, epilogue", [("conv_0", "store"), ("conv_2", "offset"), ("conv_1", "plane")])
def test_verification_finds_a_wrong_clip(model, name, epilogue):
    """A shift, an offset and a plane's weights that are not the model's."""
    import dataclasses

    lowered = pipeline.lower(keras_importer.import_model(model))
    clips = [op for op in ops_of(lowered, ir.BinaryConv2D) if op.output == f"{name}:clipped"]
    (op,) = clips
    steps, (store,) = op.fixed_point.steps, op.fixed_point.stores
    if epilogue == "store":
        fixed_point = ir.FixedPoint(steps, (ir.shift_store(store.shift + 1),))
        changed = dataclasses.replace(op, fixed_point=fixed_point)
    elif epilogue == "offset":
        first = dataclasses.replace(steps[0], offset=steps[0].offset + 4)
        changed = dataclasses.replace(op, fixed_point=ir.FixedPoint((first, *steps[1:]), (store,)))
    else:
        changed = dataclasses.replace(op, weights=1 - op.weights)
    wrong = lowered.replace(ir.Replacement((op,), (changed,)))
    found = verify_keras_model(model, writer.write(wrong), images(2), constants=False).mismatch
    assert found is not None and found.tensor == f"{name}:clipped" and found.against == "Keras"


def one_layer(n, bits, step, pad_value=0.0, groups=1, scaled=False):
    """A clipped convolution of levels and what Keras makes of images that saturate and that do not."""
    from larq_clip._keras import keras
    from larq_clip.models import clip_model

    keras.utils.set_random_seed(3)
    image = keras.Input((5, 6, 8), name="image")
    arguments = {
        "padding": "same",
        "pad_values": pad_value,
        "groups": groups,
        "activation": "relu" if groups > 1 else None,
    }
    layer = binary("conv", (6, 3), n.bit_length(), "conv", scaled, **arguments)
    model = clip_model(keras.Model(image, layer(image)), bits=bits, step=step)
    kernel = np.random.default_rng(1).normal(size=(3, 3, 8 // groups, 6)).astype(np.float32)
    kernel[..., 0], kernel[..., 1] = np.abs(kernel[..., 0]), -np.abs(kernel[..., 1])
    model.get_layer("conv").set_weights([kernel])
    x = np.random.default_rng(2).uniform(-0.5, 1.5, (3, 5, 6, 8)).astype(np.float32)
    x[0], x[1] = 1, x[1] > 0.5
    return model, x


@pytest.mark.parametrize(
    "n, bits, step, more",
    [
        (1, 8, 1, {}),
        (1, 4, 2, {"pad_value": 1.0}),
        (1, 8, 0.5, {"scaled": True}),
        (3, 8, 1, {"pad_value": 1.0, "scaled": True}),
        (3, 6, 4, {"groups": 2}),
        (3, 16, 1, {}),
        (3, 8, 0.25, {}),
        (7, 8, 1, {"groups": 2}),
        (7, 8, 2, {"scaled": True}),
        (7, 10, 0.125, {"pad_value": 1.0}),
        (7, 2, 64, {}),
    ],
)
def test_clips_of_any_width_and_step_are_exact(n, bits, step, more):
    model, x = one_layer(n, bits, step, **more)
    lowered = pipeline.lower(keras_importer.import_model(model))
    expected = np.asarray(model(x, training=False))
    clip = model.get_layer("conv").accumulator_quantizer
    unit = model.get_layer("conv").accumulator_scale()
    assert np.max(expected / unit) == pytest.approx(min(clip.largest, n * 9 * 8 // more.get("groups", 1)))
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(Interpreter(writer.write(lowered)).predict(x), expected)
    (image,) = lowered.inputs
    np.testing.assert_array_equal(ir.evaluate(lowered, {image: x})[lowered.outputs[0]], expected)
    convolutions = ops_of(lowered, ir.BinaryConv2D)
    assert len(convolutions) == n.bit_length() and {op.epilogue for op in convolutions} == {Epilogue.FIXED_POINT}


def test_levels_that_are_always_or_never_reached():
    """Norms that rise, fall, or are constant, so that none, some or all of the three levels flip in a clip's range."""
    from larq_clip._keras import keras
    from larq_clip.models import clip_model

    keras.utils.set_random_seed(3)
    image = keras.Input((5, 6, 8), name="image")
    norm = keras.layers.BatchNormalization(epsilon=0.0, name="norm")
    x = norm(binary("conv", (8, 3), 2, "conv")(image))
    model = clip_model(keras.Model(image, binary("conv", (6, 2), 2, "last")(x)))
    gamma = np.array([-0.004, 0.004, 0, -0.02, 0.02, -1, 0.001, -0.001])
    beta = np.array([0.9, 0.6, 0.6, 0.4, 0.4, 0.5, 2, -1])
    model.get_layer("norm").set_weights([gamma, beta, np.zeros(8), np.ones(8)])
    lowered = pipeline.lower(keras_importer.import_model(model))
    (levels_of_norm,) = [op for op in ops_of(lowered, ir.Bitpack) if op.input == "conv:clipped"]
    np.testing.assert_array_equal(levels_of_norm.invert, (gamma < 0) & (beta > 0))
    ends = [np.sum(levels_of_norm.thresholds == end, axis=0) for end in (-128, 127)]
    # Of 0.6 -+ 0.17: 1/6 is always, 1/2 sometimes, 5/6 never reached; the other way round where the norm falls:
    # of 0.9 -+ 0.17 both 1/6 and 1/2 are always reached.
    np.testing.assert_array_equal(ends, [[0, 1, 2, 0, 0, 0, 3, 0], [2, 1, 1, 0, 0, 0, 0, 3]])
    x = np.random.default_rng(2).uniform(-0.5, 1.5, (3, 5, 6, 8)).astype(np.float32)
    np.testing.assert_array_equal(Interpreter(writer.write(lowered)).predict(x), model(x, training=False))


def test_without_the_clip_levels_are_summed_in_float32():
    from larq_clip.models import set_clipping

    model, x = one_layer(3, 8, 1, scaled=True)
    set_clipping(model, False)
    lowered = pipeline.lower(keras_importer.import_model(model))
    expected = np.asarray(model(x, training=False))
    np.testing.assert_array_equal(Interpreter(writer.write(lowered)).predict(x), expected)


def test_levels_that_the_layer_does_not_count_are_refused():
    model, _ = one_layer(3, 8, 1)
    layer = model.get_layer("conv")
    layer.input_quantizer = levels(3)
    with pytest.raises(ConversionError, match=r"'conv' .*input_levels=3, but its input_quantizer gives m / 7"):
        keras_importer.import_model(model)
    layer.input_quantizer = levels(2)
    layer.input_levels = None
    with pytest.raises(ConversionError, match=r"input_levels=None, .* gives m / 3; build it with input_levels=3"):
        keras_importer.import_model(model)


def test_sums_that_do_not_fit_16_bits_are_refused():
    from larq_clip._keras import keras
    from larq_clip.models import clip_model

    def wide(bits):
        image = keras.Input((2**15,), name="image")
        return clip_model(keras.Model(image, binary("dense", (1,), bits, "dense")(image)))

    with pytest.raises(
        ConversionError, match=r"'dense' .* sums 32768 products of inputs of 2 bits; accepted are 32767"
    ):
        keras_importer.import_model(wide(2))
    keras_importer.import_model(wide(1))


def test_a_clip_between_two_numbers_is_exact():
    """relu6 of exact integers with fewer and with more than 8 fraction bits, as integers."""
    from larq_clip._keras import keras

    def network():
        layers = keras.layers
        image = keras.Input(SHAPE, name="image")
        x = layers.BatchNormalization(name="norm")(binary("conv", (8, 3), 2, "conv")(image))
        x = layers.Activation("hard_tanh" if hasattr(keras.activations, "hard_tanh") else "relu6", name="clip")(x)
        x = layers.Conv2D(6, 3, name="second")(x)
        x = layers.ReLU(6.0, name="relu6")(x)
        return keras.Model(image, layers.Dense(4, name="last")(layers.Flatten(name="flat")(x)))

    lowered = check(quantized(network), images())
    assert {t.name for t in lowered.tensors.values() if t.dtype is DType.FLOAT32} == {"image", *lowered.outputs}
