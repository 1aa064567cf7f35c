"""Channels that are picked, shuffled or padded with zeros: weights of int8 convolutions, exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from converter_support import Sketch, assert_same, ops_of, types
from fixed_point_support import SHAPE, check, images, quantized

from larq_clip.converter import ir, keras_importer, pipeline, spec
from larq_clip.converter.ir import DType
from larq_clip.converter.passes.lower_channels import lower_channels
from larq_clip.errors import ConversionError

BITS = (3, -1, 4, 2, 5, 0)


def select(sketch: Sketch, name: str, *channels: int, source=None) -> Sketch:
    read = sketch.tensors[source or sketch.last]
    picked = np.array(channels)
    bits = ir.shortest(np.where(picked < 0, read.scale_bits.min(), read.scale_bits[picked]))
    shape = (*read.shape[:-1], len(channels))
    return sketch.add(ir.SelectChannels, name, DType.INT8, shape, source, bits, channels=picked)


def stored(seed: int = 0) -> Sketch:
    return Sketch((4, 5, 6), seed).quantize("q", fraction_bits=BITS)


# ---- The pass -------------------------------------------------------------------------------------------------------


def test_a_convolution_reads_all_channels_with_weights_of_0():
    graph = select(stored(), "s", 4, -1, 1, 2).int8_conv("c", 3, bias=True).store("out", fraction_bits=(7,)).graph()
    result = lower_channels(graph)
    assert types(result) == ["Quantize", "Int8Conv2D", "Elementwise"]
    before, after = graph.ops[2].weights, result.ops[1].weights
    assert np.array_equal(after[..., [4, 1, 2]], before[..., [0, 2, 3]]) and not np.any(after[..., [0, 3, 5]])
    assert_same(graph, result)


def test_a_channel_taken_twice_has_no_place_for_two_weights():
    graph = select(stored(), "s", 1, 2, 1).int8_conv("c", 3).store("out", fraction_bits=(7,)).graph()
    result = lower_channels(graph)
    assert types(result) == ["Quantize", "Int8Conv2D", "Int8Conv2D", "Elementwise"]
    assert_same(graph, result)


def test_a_grouped_convolution_keeps_its_input():
    sketch = select(stored(), "s", 3, 0, 5, 1).int8_conv("c", 4).store("out", fraction_bits=(7,))
    conv = next(op for op in sketch.ops if op.name == "c")
    sketch.ops[sketch.ops.index(conv)] = dataclasses.replace(conv, groups=2, weights=conv.weights[..., :2])
    graph = sketch.graph()
    result = lower_channels(graph)
    assert [op.groups for op in ops_of(result, ir.Int8Conv2D)] == [1, 2]
    assert_same(graph, result)


@pytest.mark.parametrize("padded_first", [False, True])
def test_a_sum_with_a_padded_tensor_is_one_convolution(padded_first):
    """The stored sum, its sign before rounding, and the selection are one op."""
    sketch = select(stored(), "pad", -1, -1, 2, 0, 4)
    sketch.tensors["y"] = ir.Tensor("y", DType.FLOAT32, (4, 5, 5))
    window, _ = ir.Window.place((4, 5, 3), (1, 1))
    weights = sketch.rng.normal(size=(1, 1, 6, 5)).astype(np.float32)
    sketch.ops.append(ir.Conv2D("y", ("x",), ("y",), window, weights))
    sketch.quantize("shortcut", fraction_bits=(2, 6, -1, 3, 3), source="y")
    first, second = ("pad", "shortcut") if padded_first else ("shortcut", "pad")
    sketch.sum("sum", second, source=first).store("out", fraction_bits=(1, 2, 3, 4, 5))
    sketch.exact_norm("n", source="sum").sign("bits").binary_conv("b", 3)
    graph = sketch.graph("out", "b")
    result = lower_channels(graph)
    assert types(result).count("Int8Conv2D") == 1 and not ops_of(result, ir.SelectChannels)
    assert_same(graph, result)
    lowered = pipeline.lower(graph)
    (conv,) = ops_of(lowered, ir.Int8Conv2D)
    assert len(conv.inputs) == 2 and len(conv.outputs) == 2
    assert {lowered.tensors[name].dtype for name in conv.outputs} == {DType.INT8, DType.BIT}
    assert_same(graph, lowered)


def test_a_selection_that_others_read_is_stored():
    sketch = select(stored(), "pad", -1, 2, 0, 4, 1, -1)
    sketch.sum("sum", "pad", source="q").store("out", fraction_bits=(2,))
    sketch.exact_relu("relu", source="pad")
    graph = sketch.graph("out", "relu")
    result = lower_channels(graph)
    (conv,) = ops_of(result, ir.Int8Conv2D)
    assert result.result(conv).dtype is DType.INT8 and conv.output == "pad"
    assert_same(graph, result)
    assert_same(graph, pipeline.lower(graph))


@pytest.mark.parametrize("channels", [(0, 6), (0, -2)])
def test_channels_that_the_input_has_not_are_refused(channels):
    sketch = select(stored(), "s", 0, 1)
    sketch.ops[-1] = dataclasses.replace(sketch.ops[-1], channels=np.array(channels))
    with pytest.raises(spec.SpecError, match="'s' .*has the channels that it names"):
        sketch.graph()


# ---- Keras ----------------------------------------------------------------------------------------------------------


def shuffled():
    """Split, convolutions of the parts and their concatenation; a shuffle in front of a sign; a narrower summand."""
    from larq_clip._keras import keras, lq, tf

    layers = keras.layers
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False, "padding": "same"}
    image = keras.Input(SHAPE, name="image")
    x = layers.BatchNormalization(name="stem_norm")(layers.Conv2D(8, 3, padding="same", name="stem")(image))
    parts = layers.Lambda(lambda t: tf.split(t, 2, axis=-1), name="split")(x)
    parts = [layers.Conv2D(6, 3, padding="same", name=f"part_{i}")(part) for i, part in enumerate(parts)]
    x = layers.BatchNormalization(name="norm")(layers.Concatenate(name="join")(parts))
    y = lq.layers.QuantConv2D(4, 3, name="conv", **binary)(x)
    x = layers.Lambda(lambda t: t[0] + tf.pad(t[1], [[0, 0], [0, 0], [0, 0], [7, 1]]), name="merge")([x, y])
    y = layers.BatchNormalization(name="norm_2")(x)
    y = lq.layers.QuantConv2D(6, 3, name="conv_2", **binary)(y)
    x = layers.Concatenate(name="join_2")([y, x])
    shuffle = np.random.default_rng(1).permutation(18).tolist()
    x = layers.Lambda(lambda t: tf.gather(t, shuffle, axis=-1), name="shuffle")(x)
    x = lq.layers.QuantConv2D(6, 3, name="conv_3", **binary)(layers.BatchNormalization(name="norm_3")(x))
    x = layers.GlobalAveragePooling2D(name="mean")(layers.BatchNormalization(name="norm_4")(x))
    return keras.Model(image, layers.Dense(5, name="classifier")(x), name="shuffled")


def test_models_that_move_channels_are_exact():
    lowered = check(quantized(shuffled), images())
    sums = [op for op in ops_of(lowered, ir.Int8Conv2D) if len(op.inputs) == 2]
    assert len(sums) == 1 and sums[0].name.startswith("merge_pad+merge")
    assert not any(tensor.dtype is DType.FLOAT32 for n, tensor in lowered.tensors.items() if n.startswith("conv"))


def test_tensors_of_16_bits_are_refused():
    with pytest.raises(ConversionError, match=r"layer 'shuffle' \(TakeChannels\): its input .* is int16; only tensors"):
        keras_importer.import_model(quantized(shuffled, residual_bits=16))
