"""Whole models of quantize_model: Keras, imported graph, lowered graph and file compute the same numbers, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import ops_of, types
from fixed_point_support import MODELS, check, images, keras_outputs, quantized, reals

from larq_clip.converter import convert_keras_model, ir, keras_importer, pipeline, reader, verify_keras_model
from larq_clip.converter.ir import DType, Epilogue

FORMATS = (
    {},
    {"residual_bits": 16, "granularity": "tensor"},
    {"variables": "paper"},
)
BETWEEN = {DType.BIT, DType.INT8, DType.INT16}


@pytest.mark.parametrize("arguments", FORMATS, ids=lambda a: "-".join(map(str, a.values())) or "default")
@pytest.mark.parametrize("name", MODELS)
def test_quantized_models_are_exact(name, arguments):
    lowered = check(quantized(MODELS[name], **arguments), images())
    between = [t for n, t in lowered.tensors.items() if n not in (*lowered.inputs, *lowered.outputs)]
    assert {tensor.dtype for tensor in between} <= BETWEEN
    assert ops_of(lowered, ir.Quantize) and not ops_of(lowered, ir.BatchNorm) and not ops_of(lowered, ir.Affine)
    binary = {op.epilogue for op in ops_of(lowered, ir.BinaryConv2D)}
    stores = {op.type for op in lowered.ops if getattr(op, "fixed_point", None) is not None and len(op.outputs) > 1}
    if name == "vgg":  # every block is bits in, bits out, but the last, which the int8 classifier reads
        assert types(lowered).count("BinaryConv2D") == 3 and Epilogue.THRESHOLD in binary
        thresholds = [op.thresholds.dtype for op in ops_of(lowered, ir.BinaryConv2D) if op.thresholds is not None]
        assert set(thresholds) == {np.dtype(np.int8)}
    elif name in ("resnet", "quicknet"):  # sums are stored for the shortcut, and their signs taken before rounding
        assert binary == {Epilogue.FIXED_POINT} and "BinaryConv2D" in stores
    else:  # clipped accumulators are what is joined
        assert binary == {Epilogue.CLIP} and ops_of(lowered, ir.Concatenate) and ops_of(lowered, ir.Bitpack)


@pytest.mark.parametrize("name", ["vgg", "resnet", "densenet"])
def test_float_layers_stay_float(name):
    """Integers are equal as long as the float sums in front of them are exact; the outputs up to float32 rounding."""
    model, x = quantized(MODELS[name], float_layers="float32"), images()
    expected = keras_outputs(model, x)
    graph = keras_importer.import_model(model)
    imported = ir.evaluate(graph, {graph.inputs[0]: x})
    exact = [n for n, t in graph.tensors.items() if n in expected and t.dtype in (*ir.INTEGERS, DType.BIT)]
    assert len(exact) > 4
    for tensor in exact:
        np.testing.assert_array_equal(reals(imported[tensor], graph.tensors[tensor]), expected[tensor], err_msg=tensor)
    lowered = pipeline.lower(graph)
    assert ops_of(lowered, ir.Conv2D) and not ops_of(lowered, ir.Int8Conv2D) and not ops_of(lowered, ir.BatchNorm)
    arrays = ir.evaluate(lowered, {lowered.inputs[0]: x})
    # A batch norm behind a float convolution is lowered to an affine op, and what stores it may round a tie otherwise.
    for tensor in (n for n in lowered.tensors if n in exact and lowered.producer(n).type == "Quantize"):
        difference = np.abs(arrays[tensor].astype(int) - imported[tensor])
        assert difference.max() <= 1 and np.mean(difference) < 0.01
    np.testing.assert_allclose(arrays[lowered.outputs[0]], expected["classifier"], rtol=1e-5, atol=1e-5)


def test_float_depthwise_layers_stay_float():
    model = quantized(MODELS["quicknet"], float_layers="float32")
    data = convert_keras_model(model)
    assert any(op.groups > 1 for op in ops_of(reader.read(data), ir.Conv2D))
    assert verify_keras_model(model, data).require().tensors


def test_wide_clips_are_stored_in_16_bits():
    """A clip to 12 bits, read by a norm and by signs."""
    from larq_clip._keras import keras
    from larq_clip.models import clip_model, quantize_model

    model = MODELS["densenet"]()
    keras.utils.set_random_seed(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images(16), training=True)
    lowered = check(quantize_model(clip_model(model, bits=12), images(16)), images())
    convs = ops_of(lowered, ir.BinaryConv2D)
    assert {op.clip_limit for op in convs} == {2047} and {op.epilogue for op in convs} == {Epilogue.FIXED_POINT}
    assert {lowered.result(op).dtype for op in ops_of(lowered, ir.Concatenate)} == {DType.INT16}


def test_images_with_a_format_by_channel_are_flattened():
    """A classifier on an image: its vector repeats the formats of the channels, pixel after pixel."""
    from larq_clip._keras import keras, lq
    from larq_clip.models import clip_model, quantize_model

    layers = keras.layers

    def make():
        return keras.Sequential(
            [
                layers.InputLayer((6, 5, 3), name="image"),
                layers.Conv2D(8, 3, name="stem"),
                layers.BatchNormalization(name="stem_norm"),
                lq.layers.QuantConv2D(
                    12, 2, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, name="conv"
                ),
                layers.BatchNormalization(name="norm"),
                layers.Flatten(name="flatten"),
                layers.Dense(5, name="classifier"),
            ]
        )

    x = np.random.default_rng(1).standard_normal((6, 6, 5, 3)).astype(np.float32)
    model = make()
    model(x, training=True)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):  # formats differ by channel
            layer.gamma.assign(2.0 ** np.arange(layer.gamma.shape[0]) / 8)
    lowered = check(quantize_model(clip_model(model), x), x)
    (flat,) = [lowered.result(op) for op in ops_of(lowered, ir.Reshape)]
    assert flat.shape == (3 * 2 * 12,) and len(set(flat.fraction_bits)) > 1


def test_models_of_several_inputs_and_outputs_are_exact():
    """A sum of a binary block and of an input, which a binary layer and an output read."""
    from larq_clip._keras import keras, lq
    from larq_clip.models import clip_model, quantize_model

    layers = keras.layers
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    keras.utils.set_random_seed(4)
    a, b = keras.Input((6, 6, 3), name="a"), keras.Input((6, 6, 8), name="b")
    x = layers.BatchNormalization(name="stem_norm")(layers.Conv2D(8, 3, padding="same", name="stem")(a))
    x = layers.BatchNormalization(name="norm")(lq.layers.QuantConv2D(8, 3, padding="same", name="conv", **binary)(x))
    total = layers.Add(name="sum")([x, b])
    x = layers.BatchNormalization(name="norm_2")(lq.layers.QuantConv2D(8, 3, name="conv_2", **binary)(total))
    x = layers.Dense(3, name="classifier")(layers.Flatten(name="flatten")(x))
    model = keras.Model([a, b], [x, layers.GlobalAveragePooling2D(name="mean")(total)])
    rng = np.random.default_rng(5)
    data = {name: rng.normal(size=(6, 6, 6, channels)).astype(np.float32) for name, channels in (("a", 3), ("b", 8))}
    model(data, training=True)
    model = quantize_model(clip_model(model, step="auto", calibration_data=data), data)
    verified = verify_keras_model(model, convert_keras_model(model), [data["a"], data["b"]]).require()
    assert not verified.flipped and not any(verified.tensors.values())
    assert {"a_int8", "b_int8", "sum_int8", "conv_2:input", "classifier", "mean"} <= set(verified.tensors)
