"""Each pass: evaluate, transform, evaluate again, compare; the pattern is gone; and a case where it does not fire."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from converter_support import Sketch, assert_same, ops_of, run, types

from larq_clip.converter import ir, passes, pipeline, spec
from larq_clip.converter.ir import DType, Epilogue
from larq_clip.converter.passes.float_outputs import float_outputs
from larq_clip.converter.passes.fuse_thresholds import fuse_thresholds
from larq_clip.converter.passes.separate_outputs import separate_outputs
from larq_clip.converter.passes.share_signs import share_signs
from larq_clip.converter.passes.sink_flatten import sink_flatten
from larq_clip.errors import ConversionError


def test_every_pass_is_in_the_pipeline_once():
    names = [stage.run.__name__ for stage in pipeline.PIPELINE]
    files = {path.stem for path in Path(passes.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert len(names) == len(set(names)) and set(names) == files
    assert all(stage.reason for stage in pipeline.PIPELINE)


# ---- float_outputs --------------------------------------------------------------------------------------------------


def test_float_outputs_unpacks_bits_and_keeps_other_readers():
    graph = Sketch((4, 4, 5)).sign("s").binary_conv("c", 3).graph("s", "c")
    result = float_outputs(graph)
    assert {result.tensors[name].dtype for name in result.outputs} == {DType.FLOAT32}
    assert result.producer("s").type == "Unpack" and result.producer("c").type == "Affine"
    assert sorted(op.type for op in result.consumers("s:bits")) == ["BinaryConv2D", "Unpack"]
    assert_same(graph, result)


def test_float_outputs_keeps_the_scale_of_integers():
    graph = Sketch((4, 4, 5)).sign("s").binary_conv("c", 3).clip("q", step_log2=2).graph()
    result = float_outputs(graph)
    assert result.tensors["q"].dtype is DType.FLOAT32 and result.tensors["q:integers"].fraction_bits == (-2,)
    assert np.any(run(result)["q"] % 4 == 0) and np.all(run(result)["q"] % 4 == 0)
    assert_same(graph, result)


def test_float_outputs_leaves_float_outputs():
    graph = Sketch((4, 4, 5)).conv("c", 3).graph()
    assert float_outputs(graph) is graph


# ---- separate_outputs -----------------------------------------------------------------------------------------------


def test_separate_outputs_copies_what_is_listed_again():
    graph = Sketch((4, 4, 5)).conv("c", 3).relu("r").graph("c", "r", "c", "x", "c")
    result = separate_outputs(graph)
    assert result.outputs == ("c", "r", "c:again", "x:again", "c:again:2")
    assert_same(graph, result)
    arrays = run(result)
    for name in result.outputs[2:]:
        np.testing.assert_array_equal(arrays[name], arrays[name[0]])
    with pytest.raises(spec.SpecError, match="must differ"):
        spec.check(graph, lowered=True)


def test_separate_outputs_leaves_outputs_that_differ():
    graph = Sketch((4, 4, 5)).conv("c", 3).relu("r").graph("c", "r")
    assert separate_outputs(graph) is graph


# ---- sink_flatten ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 64])
def test_sink_flatten_makes_dense_a_convolution(channels):
    sketch = Sketch((2, 3, channels)).flatten("f").sign("d:input").binary_conv("d", 7, kernel=1)
    graph = sketch.graph()
    result = sink_flatten(graph)
    assert types(result) == ["Bitpack", "BinaryConv2D"]
    conv = result.ops[1]
    assert (conv.window.kernel_h, conv.window.kernel_w) == (2, 3)
    assert result.tensors["d:input"].shape == (2, 3, channels)
    assert_same(graph, result)


def one_pixel(kernel: int, groups: int = 1) -> Sketch:
    """The sign of an image that is reshaped to one pixel, and a binary convolution of it."""
    sketch = Sketch((2, 3, 6)).add(ir.Reshape, "f", shape=(1, 1, 36)).sign("d:input")
    return sketch.binary_conv("d", 8, kernel=kernel, groups=groups)


def test_sink_flatten_takes_one_pixel_for_a_vector():
    graph = one_pixel(1).graph()
    result = sink_flatten(graph)
    assert types(result) == ["Bitpack", "BinaryConv2D"]
    assert result.ops[1].weights.shape == (8, 2, 3, 6) and result.tensors["d"].shape == (1, 1, 8)
    assert_same(graph, result)
    assert types(pipeline.lower(graph)) == types(result)


@pytest.mark.parametrize("conv", [{"kernel": 3}, {"kernel": 1, "groups": 4}])
def test_sink_flatten_leaves_one_pixel_to_other_convolutions(conv):
    graph = one_pixel(**conv).graph()
    assert types(sink_flatten(graph)) == types(graph)
    assert_same(graph, pipeline.lower(graph))


def test_sink_flatten_ends_as_floats_before_a_float_layer():
    graph = Sketch((2, 3, 5)).flatten("f").sign("s").add(ir.Unpack, "u").conv("d", 4, kernel=1).graph()
    result = sink_flatten(graph)
    assert types(result) == ["Bitpack", "Unpack", "Reshape", "Conv2D"]
    assert result.source(result.ops[2]).dtype is DType.FLOAT32
    assert_same(graph, result)


def test_sink_flatten_keeps_flatten_for_others():
    sketch = Sketch((2, 3, 5)).flatten("f").sign("s").binary_conv("d", 7, kernel=1)
    sketch.conv("e", 2, kernel=1, source="f")
    graph = sketch.graph("d", "e")
    result = sink_flatten(graph)
    assert [op.output for op in ops_of(result, ir.Reshape)] == ["f"]
    assert ops_of(result, ir.BinaryConv2D)[0].window.kernel_w == 3
    assert_same(graph, result)


def test_sink_flatten_does_not_fire_on_thresholds_or_other_reshapes():
    thresholds = np.linspace(-1, 1, 30, dtype=np.float32)
    per_pixel = Sketch((2, 3, 5)).flatten("f").sign("s", thresholds=thresholds).binary_conv("d", 2, kernel=1).graph()
    assert types(sink_flatten(per_pixel)) == types(per_pixel)
    to_image = Sketch((30,)).add(ir.Reshape, "r", shape=(2, 3, 5)).sign("s").binary_conv("c", 2).graph()
    assert types(sink_flatten(to_image)) == types(to_image)


# ---- share_signs ----------------------------------------------------------------------------------------------------


def test_share_signs_makes_one_bit_tensor():
    sketch = Sketch((4, 4, 5)).sign("a").binary_conv("c", 3)
    sketch.sign("b", source="x").binary_conv("d", 3)
    graph = sketch.graph("c", "d")
    result = share_signs(graph)
    assert len(ops_of(result, ir.Bitpack)) == 1
    assert {op.input for op in ops_of(result, ir.BinaryConv2D)} == {"a"}
    assert_same(graph, result)


def test_share_signs_does_not_fire_on_thresholds():
    sketch = Sketch((4, 4, 5)).sign("a").binary_conv("c", 3)
    sketch.sign("b", source="x", thresholds=np.full(5, 0.5, np.float32)).binary_conv("d", 3)
    graph = sketch.graph("c", "d")
    assert len(ops_of(share_signs(graph), ir.Bitpack)) == 2


def test_layers_that_read_an_image_and_its_flattening_share_bits():
    sketch = Sketch((4, 4, 5)).sign("a").binary_conv("c", 3)
    sketch.flatten("f", source="x").sign("b").binary_conv("d", 3, kernel=1)
    graph = sketch.graph("c", "d")
    result = pipeline.lower(graph)
    assert len(ops_of(result, ir.Bitpack)) == 1
    assert_same(graph, result)


# ---- fuse_thresholds ------------------------------------------------------------------------------------------------


def chain(order: str, **clip) -> Sketch:
    """A binary convolution, the ops that the letters of `order` name, a sign and a second convolution."""
    sketch = Sketch((6, 7, 40), seed=len(order)).sign("s").binary_conv("c", 21)
    if clip:
        sketch.clip("q", **clip)
    for i, letter in enumerate(order):
        {"n": sketch.norm, "p": sketch.pool, "r": sketch.relu}[letter](f"{letter}{i}")
    return sketch.sign("t").binary_conv("d", 5)


@pytest.mark.parametrize("order", ["", "n", "pn", "np", "nr", "nrn", "pnp", "npnp", "npn", "nnp"])
@pytest.mark.parametrize(
    "clip", [{}, {"bits": 8}, {"bits": 8, "step_log2": 3}, {"bits": 5, "step_log2": 1}, {"bits": 10}]
)
def test_fuse_thresholds_swallows_monotone_chains(order, clip):
    graph = chain(order, **clip).graph()
    result = fuse_thresholds(graph)
    pools = order.count("p")
    assert types(result) == ["Bitpack", "BinaryConv2D", *["BitMaxPool2D"] * pools, "BinaryConv2D"]
    fused = result.ops[1]
    assert fused.epilogue is Epilogue.THRESHOLD
    if clip and clip["bits"] <= 8:
        assert fused.thresholds.dtype == np.int8
    assert_same(graph, result)
    bits = run(result)["t"]
    if order != "nr":  # the sign of a relu is always +1
        assert 0 < bits.mean() < 1
    else:
        assert not bits.any()


@pytest.mark.parametrize("order", ["n", "pn", "np", "npn", "nrnp"])
def test_fuse_thresholds_of_float_layers(order):
    sketch = Sketch((6, 7, 4), seed=3).conv("c", 21, bias=True)
    for i, letter in enumerate(order):
        if letter == "r":
            sketch.relu(f"r{i}")
        else:
            (sketch.norm if letter == "n" else sketch.pool)(f"{letter}{i}", **({"scale": 1.0} if letter == "n" else {}))
    graph = sketch.sign("t").binary_conv("d", 5).graph()
    result = fuse_thresholds(graph)
    assert types(result) == ["Conv2D", "Bitpack", *["BitMaxPool2D"] * order.count("p"), "BinaryConv2D"]
    assert result.ops[1].thresholds.dtype == np.float32
    assert_same(graph, result)
    assert 0 < run(result)["t"].mean() < 1


def test_fuse_thresholds_chooses_the_narrowest_type():
    def thresholds(scale, channels):
        sketch = Sketch((6, 6, channels)).sign("s").binary_conv("c", 64).norm("n", scale=scale).sign("t")
        return fuse_thresholds(sketch.binary_conv("d", 2).graph()).ops[1].thresholds

    wide = thresholds(200.0, 64)
    assert wide.dtype == np.int16 and np.abs(wide).max() > 127
    assert thresholds(5.0, 8).dtype == np.int8  # K = 72, so 'always' is -73
    sketch = Sketch((1, 1, 40000)).sign("s").binary_conv("c", 4, kernel=1)
    mean = np.array([0, 39999, -39999, 100], np.float32)
    one = np.ones(4, np.float32)
    sketch.add(ir.BatchNorm, "n", gamma=one, beta=0 * one, mean=mean, variance=one, epsilon=1e-3).sign("t")
    assert fuse_thresholds(sketch.binary_conv("d", 2, kernel=1).graph()).ops[1].thresholds.dtype == np.int32


@pytest.mark.parametrize("clip", [False, True])
def test_fuse_thresholds_leaves_what_others_read(clip):
    sketch = Sketch((6, 7, 40)).sign("s").binary_conv("c", 21)
    if clip:
        sketch.clip("q", step_log2=1)
    sketch.norm("n").sign("t").binary_conv("d", 5)
    sketch.pool("p", source="n").conv("e", 3)
    graph = sketch.graph("d", "e")
    result = fuse_thresholds(graph)
    first = ops_of(result, ir.BinaryConv2D)[0]
    assert first.epilogue is Epilogue.ACCUMULATOR
    assert len(ops_of(result, ir.BatchNorm)) == 1
    packed = ops_of(result, ir.Bitpack)[1]
    assert packed.thresholds is not None and packed.thresholds.dtype == (np.int8 if clip else np.float32)
    lowered = pipeline.lower(graph)
    old, new = run(graph), run(lowered)
    for name in ("s", "t"):
        np.testing.assert_array_equal(new[name], old[name])
    np.testing.assert_array_equal(new["d"], old["d"].astype(np.float32))
    np.testing.assert_allclose(new["e"], old["e"], rtol=0, atol=1e-4)


def test_fuse_thresholds_with_parameters_per_pixel():
    """A batch norm over flattened features has no threshold per channel; it stays behind the Flatten."""
    sketch = Sketch((3, 4, 20)).sign("s").binary_conv("c", 6).clip("q").flatten("f").norm("n").sign("t")
    graph = sketch.binary_conv("d", 5, kernel=1).graph()
    result = pipeline.lower(graph)
    assert types(result) == ["Bitpack", "BinaryConv2D", "Reshape", "Bitpack", "BinaryConv2D"]
    assert result.ops[3].thresholds.shape == (72,) and result.ops[3].thresholds.dtype == np.int8
    assert_same(graph, result)


def test_fuse_thresholds_survives_overflow_before_gamma_zero():
    sketch = Sketch((2, 2, 3)).conv("c", 4)
    ones = np.ones(4, np.float32)
    stats = {"mean": 0 * ones, "variance": 1e-6 * ones, "epsilon": 1e-6}
    sketch.add(ir.BatchNorm, "n", gamma=1e3 * ones, beta=ones, **stats)
    sketch.add(ir.BatchNorm, "m", gamma=np.array([0, 0, 1, -1], "f"), beta=np.array([-1, 1, 0, 0], "f"), **stats)
    graph = sketch.sign("t").binary_conv("d", 2).graph()
    assert_same(graph, fuse_thresholds(graph))


def test_fuse_thresholds_refuses_statistics_that_overflow():
    ones = np.ones(4, np.float32)
    stats = {"beta": ones, "variance": 1e-12 * ones, "epsilon": 1e-12}
    for sketch in (Sketch((2, 2, 3)).conv("c", 4), Sketch((2, 2, 3)).sign("s").binary_conv("c", 4)):
        sketch.add(ir.BatchNorm, "n", gamma=ones, mean=3e38 * ones, **stats)
        sketch.add(ir.BatchNorm, "m", gamma=0 * ones, mean=ones, **stats)
        with pytest.raises(ConversionError, match="layers 'n\\+m' before the sign 't' overflow float32"):
            fuse_thresholds(sketch.sign("t").binary_conv("d", 2).graph())


def test_fuse_thresholds_does_not_fire():
    plain = Sketch((4, 4, 5)).sign("s").binary_conv("c", 3).graph()
    assert fuse_thresholds(plain) is plain
    after_mean = Sketch((4, 4, 5)).pool("a", op_type=ir.AveragePool2D).sign("s").binary_conv("c", 3).graph()
    assert fuse_thresholds(after_mean) is after_mean
    once = fuse_thresholds(chain("pn", bits=8).graph())
    assert fuse_thresholds(once) is once


# ---- The pipeline ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups, dilation, strides", [(2, (1, 1), (1, 1)), (4, (2, 3), (1, 1)), (1, (1, 1), (2, 1))])
@pytest.mark.parametrize("pad_value", [0, 1, -1])
def test_lower_grouped_dilated_strided(groups, dilation, strides, pad_value):
    sketch = (
        Sketch((7, 6, 8))
        .sign("s")
        .binary_conv("c", 12, groups=groups, dilation=dilation, strides=strides, pad_value=pad_value)
    )
    graph = sketch.clip("q").norm("n").sign("t").binary_conv("d", 4, kernel=1).graph()
    result = pipeline.lower(graph)
    spec.check(result, lowered=True)
    assert_same(graph, result)


def test_a_pass_that_breaks_a_rule_is_named(monkeypatch):
    def break_it(graph):
        return ir.Graph(graph.name, graph.tensors, graph.ops[::-1], graph.inputs, graph.outputs)

    monkeypatch.setattr(pipeline, "PIPELINE", (pipeline.Stage(break_it, "a test"),))
    with pytest.raises(spec.SpecError, match="after the pass break_it"):
        pipeline.lower(chain("n").graph())
