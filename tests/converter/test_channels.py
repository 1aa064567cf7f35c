"""Channels that are picked, shuffled or padded with zeros: weights of int8 convolutions, exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from converter_support import Sketch, assert_same, ops_of, types
from fixed_point_support import SHAPE, check, images, quantized

from larq_clip.converter import ir, keras_importer, pipeline, spec
from larq_clip.converter.ir import DType
from larq_clip.converter.passes.fuse_fixed_point import fuse_fixed_point
from larq_clip.converter.passes.join_convolutions import join_convolutions
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


# ---- Joining ---------------------------------------------------------------------------------------------------------


def parts(*filters: int, steps: int = 1, dtypes=(DType.INT8,)) -> Sketch:
    """Convolutions of neighbouring channels, with biases, norms and relus or without, whose outputs are joined."""
    sketch = stored()
    for i, count in enumerate(filters):
        select(sketch, f"s{i}", 2 * i, 2 * i + 1, source="q").int8_conv(f"c{i}", count, bias=i != 1)
        for j in range(steps):
            sketch.exact_relu(f"r{i}{j}").exact_norm(f"n{i}{j}")
        sketch.store(f"o{i}", dtypes[i % len(dtypes)], fraction_bits=(i + 2,))
    return sketch.join("j", *(f"o{i}" for i in range(len(filters))))


@pytest.mark.parametrize("steps", [0, 1])
def test_convolutions_of_groups_of_channels_become_one(steps):
    graph = parts(3, 1, 4, steps=steps).sign("bits").graph("j", "bits")
    before = fuse_fixed_point(lower_channels(graph))
    assert types(before).count("Int8Conv2D") == 3 and "Concatenate" in types(before)
    result = join_convolutions(before)
    assert types(result).count("Int8Conv2D") == 1 and "Concatenate" not in types(result)
    assert_same(graph, result)
    (conv,) = ops_of(result, ir.Int8Conv2D)
    old = ops_of(before, ir.Int8Conv2D)
    np.testing.assert_array_equal(conv.weights, np.concatenate([op.weights for op in old]))
    np.testing.assert_array_equal(conv.bias, [*old[0].bias, 0, *old[2].bias])
    assert conv.output == "j" and conv.name == ir.join_names(*old, ops_of(before, ir.Concatenate)[0])


def other_reader(sketch: Sketch) -> ir.Graph:
    return sketch.graph("j", "o1")


def other_input(sketch: Sketch) -> ir.Graph:
    sketch.quantize("q2", fraction_bits=BITS, source="x")
    place = next(i for i, op in enumerate(sketch.ops) if op.name == "s1")
    sketch.ops[place] = dataclasses.replace(sketch.ops[place], inputs=("q2",))
    return sketch.graph("j")


def other_steps(sketch: Sketch) -> ir.Graph:
    place = next(i for i, op in enumerate(sketch.ops) if op.name == "o1")
    sketch.exact_relu("again", source="n10")
    sketch.ops[place] = dataclasses.replace(sketch.ops[place], inputs=("again",))
    return sketch.graph("j")


def other_window(sketch: Sketch) -> ir.Graph:
    place = next(i for i, op in enumerate(sketch.ops) if op.name == "c1")
    op = sketch.ops[place]
    window, _ = ir.Window.place((4, 5, 6), (1, 1), padding="same")
    sketch.ops[place] = dataclasses.replace(op, window=window, weights=op.weights[:, :1, :1])
    return sketch.graph("j")


@pytest.mark.parametrize("change", [other_reader, other_input, other_steps, other_window])
def test_convolutions_that_differ_are_left(change):
    graph = change(parts(3, 2))
    before = fuse_fixed_point(lower_channels(graph))
    assert join_convolutions(before) is before and types(before).count("Int8Conv2D") == 2


def test_convolutions_stored_in_different_types_are_left():
    before = fuse_fixed_point(lower_channels(parts(3, 2, dtypes=(DType.INT8, DType.INT16)).graph("j")))
    assert join_convolutions(before) is before and "Concatenate" in types(before)


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
