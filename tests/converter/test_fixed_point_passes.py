"""The passes of fixed-point models: evaluate, transform, evaluate; the pattern is gone; where it does not fire."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from converter_support import Sketch, assert_same, ops_of, run, types

from larq_clip.converter import ir, pipeline
from larq_clip.converter.ir import DType, Epilogue, StepKind
from larq_clip.converter.passes.check_ranges import check_ranges
from larq_clip.converter.passes.float_outputs import float_outputs
from larq_clip.converter.passes.fold_padding import fold_padding
from larq_clip.converter.passes.fuse_fixed_point import fuse_fixed_point
from larq_clip.converter.passes.fuse_thresholds import fuse_thresholds
from larq_clip.converter.passes.lower_accumulators import lower_accumulators
from larq_clip.converter.passes.store_before_pools import store_before_pools
from larq_clip.errors import ConversionError


def kinds(op) -> list[StepKind]:
    return [step.kind for step in op.fixed_point.steps]


def binary_block(**arguments) -> Sketch:
    return Sketch((4, 4, 5), **arguments).sign("s").binary_conv("c", 6).clip("q", step_log2=1)


# ---- check_ranges ---------------------------------------------------------------------------------------------------


def test_check_ranges_lets_pass_what_fits():
    graph = binary_block().exact_norm("n").graph()
    assert check_ranges(graph) is graph
    reach = ir.ranges(graph)["n"]
    norm = graph.producer("n").fixed_point.steps[0]
    ends = [norm.multiplier.astype(np.int64) * v + norm.offset for v in (-127, 127)]
    np.testing.assert_array_equal(reach.low.astype(np.int64), np.minimum(*ends))
    np.testing.assert_array_equal(reach.high.astype(np.int64), np.maximum(*ends))


def test_ranges_of_relus_and_sums():
    sketch = (
        Sketch((2, 2, 3)).quantize("i", fraction_bits=(2,)).exact_relu("r").exact_norm("n", None, [3, -2, 1], [0] * 3)
    )
    graph = sketch.sum("y", "i").graph()
    found = ir.ranges(graph)  # r is stored: its type is all that is known of it
    assert (list(found["n"].low), list(found["n"].high)) == ([-384, -254, -128], [381, 256, 127])
    assert (list(found["y"].low), list(found["y"].high)) == (
        [-384 - (128 << 8), -254 - (128 << 8), -128 - (128 << 8)],
        [381 + (127 << 8), 256 + (127 << 8), 127 + (127 << 8)],
    )
    exact = Sketch((2, 2, 3)).quantize("i").exact_norm("n", None, [3, -2, 1], [0] * 3).exact_relu("r").graph()
    assert list(ir.ranges(exact)["r"].low) == [0, 0, 0] and list(ir.ranges(exact)["r"].high) == [381, 256, 127]


def test_check_ranges_refuses_what_may_overflow():
    big = np.full(6, 1 << 30)
    sketch = binary_block().exact_norm("n", multiplier=big).exact_norm("n2", multiplier=big)
    with pytest.raises(ConversionError, match=r"op 'n2': step 1 of 1 \(affine\) reaches 67 bits; accepted.*2\^62"):
        check_ranges(sketch.graph())
    # 127 * 2^30 * 2^25 is just below 2^62; one bit more is beyond.
    for shift, fits in ((25, True), (26, False)):
        sketch = binary_block().exact_norm("n", multiplier=big, offset=big * 0)
        sketch.exact_norm("n2", multiplier=np.full(6, 1 << shift), offset=big * 0)
        if fits:
            check_ranges(sketch.graph())
        else:
            with pytest.raises(ConversionError, match="op 'n2'"):
                check_ranges(sketch.graph())


def test_check_ranges_refuses_sums_of_int8_beyond_int32():
    sketch = Sketch((1, 1, 4)).quantize("i").int8_conv("c", 2, kernel=1, bias=True)
    sketch.ops[-1] = dataclasses.replace(sketch.ops[-1], bias=np.array([2**31 - 1, 0], np.int32))
    with pytest.raises(ConversionError, match="op 'c': its sums reach .* accepted are sums within int32"):
        check_ranges(sketch.graph())


# ---- fold_padding ---------------------------------------------------------------------------------------------------


def pad(sketch: Sketch, name: str, top: int, below: int, left: int, right: int) -> Sketch:
    height, width, channels = sketch.tensors[sketch.last].shape
    read = sketch.tensors[sketch.last]
    shape = (top + height + below, left + width + right, channels)
    return sketch.add(ir.Slice, name, read.dtype, shape, None, read.fraction_bits, begin_h=-top, begin_w=-left)


def valid(sketch: Sketch) -> Sketch:
    """The last convolution with padding 'valid'."""
    op, result = sketch.ops[-1], sketch.tensors[sketch.last]
    source = sketch.tensors[op.input]
    window, size = ir.Window.place(source.shape, (op.window.kernel_h, op.window.kernel_w))
    sketch.ops[-1] = dataclasses.replace(op, window=window)
    sketch.tensors[result.name] = dataclasses.replace(result, shape=(*size, result.channels))
    return sketch


def test_fold_padding_into_float_and_int8_convolutions():
    for graph in (
        valid(pad(Sketch((5, 4, 3)), "p", 1, 0, 2, 1).conv("c", 4)).graph(),
        valid(pad(Sketch((5, 4, 3)).quantize("i", fraction_bits=(5,)), "p", 2, 1, 1, 1).int8_conv("c", 4)).graph(),
        valid(pad(Sketch((5, 4, 3)), "p", 1, 1, 1, 1).quantize("i").int8_conv("c", 4)).graph(),
    ):
        result = fold_padding(graph)
        assert not ops_of(result, ir.Slice) and len(result.ops) == len(graph.ops) - 1
        assert_same(graph, result)


def test_fold_padding_in_front_of_a_sign_pads_with_plus_one():
    graph = pad(Sketch((5, 4, 3)), "p", 1, 1, 2, 0).sign("s").binary_conv("c", 4, padding="valid").graph()
    result = fold_padding(graph)
    conv = ops_of(result, ir.BinaryConv2D)[0]
    assert types(result) == ["Bitpack", "BinaryConv2D"] and conv.pad_value == 1
    assert (conv.window.pad_top, conv.window.pad_left) == (1, 2)
    assert_same(graph, result)


def test_fold_padding_leaves_what_it_cannot_fold():
    own_padding = pad(Sketch((5, 4, 3)), "p", 1, 1, 1, 1).sign("s").binary_conv("c", 4)
    larger_than_kernel = valid(pad(Sketch((5, 4, 3)), "p", 3, 3, 3, 3).conv("c", 4))
    pooled = pad(Sketch((5, 4, 3)), "p", 1, 1, 1, 1).pool("c")
    cropped = valid(Sketch((5, 4, 3)).add(ir.Slice, "p", shape=(5, 4, 3), begin_h=-1).conv("c", 4))
    other_value = valid(Sketch((5, 4, 3)).add(ir.Slice, "p", shape=(7, 4, 3), begin_h=-1, value=1.0).conv("c", 4))
    for sketch in (own_padding, larger_than_kernel, pooled, cropped, other_value):
        graph = sketch.graph()
        assert types(fold_padding(graph)) == types(graph)


# ---- store_before_pools ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16])
def test_store_before_pools_rounds_first(dtype):
    sketch = Sketch((6, 6, 4)).quantize("i").int8_conv("c", 5).exact_norm("n").exact_relu("r").pool("p")
    graph = sketch.store("out", dtype, (-1, 3, 2, 0, 1)).graph()
    result = store_before_pools(graph)
    pool = result.ops[-1]
    assert isinstance(pool, ir.MaxPool2D) and result.source(pool).has_format(dtype, graph.tensors["out"].scale_bits)
    assert_same(graph, result)
    lowered = pipeline.lower(graph)
    assert types(lowered)[:3] == ["Quantize", "Int8Conv2D", "MaxPool2D"]
    assert_same(graph, lowered)


def test_store_before_pools_leaves_stored_tensors_and_steps_behind_pools():
    stored = Sketch((6, 6, 4)).quantize("i", fraction_bits=(3,)).pool("p").store("out", fraction_bits=(1,)).graph()
    assert types(store_before_pools(stored)) == types(stored)
    steps = Sketch((6, 6, 4)).quantize("i").int8_conv("c", 5).pool("p").exact_norm("n").store("out").graph()
    assert types(store_before_pools(steps)) == types(steps)


# ---- fuse_thresholds, on integers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pools", ["", "before", "after"])
def test_fuse_thresholds_of_integer_norms(pools):
    sketch = binary_block()
    if pools == "before":
        sketch.pool("p")
    sketch.exact_norm("n").exact_norm("n2")
    if pools == "after":
        sketch.pool("p")
    graph = sketch.sign("t").binary_conv("d", 3, kernel=1).graph()
    result = fuse_thresholds(graph)
    conv = ops_of(result, ir.BinaryConv2D)[0]
    assert conv.epilogue is Epilogue.THRESHOLD and conv.thresholds.dtype == np.int8
    assert not ops_of(result, ir.Elementwise) and len(ops_of(result, ir.BitMaxPool2D)) == bool(pools)
    assert_same(graph, result)


def test_fuse_thresholds_of_stored_tensors_of_both_types():
    for dtype, numbers in ((DType.INT8, np.int8), (DType.INT16, np.int16)):
        sketch = Sketch((4, 4, 5)).quantize("i", dtype, fraction_bits=(6,)).exact_norm("n").sign("t")
        graph = sketch.binary_conv("d", 3).graph()
        result = fuse_thresholds(graph)
        sign = ops_of(result, ir.Bitpack)[0]
        assert types(result)[:2] == ["Quantize", "Bitpack"] and sign.thresholds.dtype == numbers
        assert_same(graph, result)


def test_fuse_thresholds_of_an_exact_sum_and_of_every_value():
    """A multiplier of 0 has a constant sign; one of -1 flips where y + t = 0, which is a sign of +1."""
    multiplier, offset = np.array([0, 0, 1, -1, -3, 7]), np.array([-1, 0, 5, 5, 10, -22])
    sketch = Sketch((1, 1, 6)).quantize("i", fraction_bits=(2,)).int8_conv("c", 6, kernel=1)
    graph = sketch.exact_norm("n", multiplier=multiplier, offset=offset).sign("t").graph()
    sign = fuse_thresholds(graph).producer("t")
    assert sign.thresholds.dtype == np.int64 and sign.input == "c"
    y = np.arange(-30, 31)[:, None] * np.ones(6, int)
    expected = (multiplier * y + offset < 0).astype(np.uint8)
    tensors = (ir.Tensor("", DType.INT64, (6,)), ir.Tensor("", DType.BIT, (6,)))
    np.testing.assert_array_equal(sign.compute(y, *tensors), expected)
    assert_same(graph, fuse_thresholds(graph))


def test_fuse_thresholds_of_channels_with_different_reach():
    """What one channel can hold would overflow in another."""
    sketch = Sketch((1, 1, 2)).quantize("i").exact_norm("n", None, [1 << 30, 1], [0, 0]).sum("y", "i")
    graph = sketch.exact_norm("m", None, [1, -(1 << 30)], [-(1 << 20), 1 << 38]).sign("t").binary_conv("d", 2).graph()
    check_ranges(graph)
    result = fuse_thresholds(graph)
    assert result.producer("t").input == "y"
    sign, y = result.producer("t"), np.array([[1 << 20, (1 << 8) + 1], [(1 << 20) - 1, 1 << 8]])
    tensors = (ir.Tensor("", DType.INT64, (2,)), ir.Tensor("", DType.BIT, (2,)))
    np.testing.assert_array_equal(sign.compute(y, *tensors), [[0, 1], [1, 0]])
    assert_same(graph, result)


def test_fuse_thresholds_stops_at_exact_tensors_that_are_stored_too():
    sketch = binary_block().exact_norm("n").exact_norm("n2").store("i", source="n")
    graph = sketch.sign("t", source="n2").graph("i", "t")
    result = fuse_thresholds(graph)
    assert result.producer("t").input == "n"
    assert_same(graph, result)


# ---- fuse_fixed_point -----------------------------------------------------------------------------------------------


def test_fuse_fixed_point_takes_a_whole_chain():
    graph = binary_block().exact_norm("n").exact_relu("r").store("i", fraction_bits=(3,)).graph()
    result = fuse_fixed_point(graph)
    assert types(result) == ["Bitpack", "BinaryConv2D"]
    conv = result.ops[1]
    assert conv.epilogue is Epilogue.FIXED_POINT and kinds(conv) == [StepKind.AFFINE, StepKind.RELU]
    assert (conv.clip_limit, conv.step_log2, conv.name) == (127, 1, "c+q+n+r+i")
    assert_same(graph, result)


def test_fuse_fixed_point_adds_stored_operands_and_writes_several_outputs():
    sketch = Sketch((4, 4, 5)).quantize("a", fraction_bits=(3, 4, 5, 6, 7)).quantize("b", DType.INT16, source="x")
    sketch.sign("s").binary_conv("c", 5).clip("q").exact_norm("n").sum("y", "a").sum("z", "b")
    sketch.store("i", fraction_bits=(1,)).store("j", DType.INT16, (4,), source="z").sign("t", source="z")
    graph = float_outputs(sketch.graph("i", "j", "t", "z"))
    result = fuse_fixed_point(graph)
    conv = ops_of(result, ir.BinaryConv2D)[0]
    assert kinds(conv) == [StepKind.AFFINE, StepKind.ADD, StepKind.ADD] and conv.inputs == ("s", "a", "b")
    assert [step.operand for step in conv.fixed_point.steps] == [0, 1, 2] and len(conv.outputs) == 4
    assert_same(graph, result)
    assert_same(graph, pipeline.lower(graph))


def test_fuse_fixed_point_merges_affine_steps_that_fit():
    sketch = Sketch((3, 3, 4)).quantize("i").int8_conv("c", 6).exact_norm("n").store("o")
    graph = sketch.graph()
    result = fuse_fixed_point(graph)
    assert types(result) == ["Quantize", "Int8Conv2D"] and kinds(result.ops[1]) == [StepKind.AFFINE]
    assert_same(graph, result)
    big = np.full(6, 1 << 24)
    sketch = Sketch((3, 3, 4)).quantize("i").int8_conv("c", 6).exact_norm("n", multiplier=big).store("o")
    result = fuse_fixed_point(sketch.graph())
    assert kinds(result.ops[1]) == [StepKind.AFFINE, StepKind.AFFINE]
    assert_same(sketch.graph(), result)


def test_fuse_fixed_point_keeps_a_clipped_accumulator_that_others_read():
    sketch = binary_block().exact_norm("n").store("i")
    sketch.exact_norm("m", source="q").store("j")
    graph = sketch.graph("i", "j")
    result = lower_accumulators(fuse_fixed_point(graph))
    assert types(result) == ["Bitpack", "BinaryConv2D", "Elementwise", "Elementwise"]
    assert result.ops[1].epilogue is Epilogue.CLIP and result.tensors["q"].dtype is DType.INT8
    assert_same(graph, result)


def test_fuse_fixed_point_goes_on_behind_a_store_that_changes_nothing():
    """The relu of a clipped accumulator fits 8 bits; that of a norm does not."""
    graph = binary_block().exact_relu("r").exact_norm("n").store("i").graph()
    result = fuse_fixed_point(graph)
    assert types(result) == ["Bitpack", "BinaryConv2D"] and kinds(result.ops[1]) == [StepKind.RELU, StepKind.AFFINE]
    assert_same(graph, result)
    graph = binary_block().exact_norm("m").store("k", fraction_bits=(9,)).exact_norm("n").store("i").graph()
    result = fuse_fixed_point(graph)
    assert result.producer("k") is not None and types(result)[-1] == "Elementwise"
    assert_same(graph, result)


def test_fuse_fixed_point_does_not_fire_on_stored_tensors():
    graph = Sketch((3, 3, 4)).quantize("i").exact_norm("n").store("o").exact_norm("m").store("p").graph()
    result = fuse_fixed_point(graph)
    assert types(result) == ["Quantize", "Elementwise", "Elementwise"]
    assert_same(graph, result)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda s: s.exact_norm("n").exact_norm("m").store("o").store("p", source="n"), r"'n'.*\['m\+o', 'p'\] read"),
        (lambda s: s.exact_norm("n").pool("p").store("o"), r"'n' are never.*'p' \(MaxPool2D\) reads"),
        (lambda s: s.exact_norm("n").exact_norm("m", source="q").sum("y", "n").store("o"), "adds it to another exact"),
    ],
)
def test_fuse_fixed_point_refuses_exact_tensors_that_are_left(build, message):
    sketch = build(binary_block())
    stored = [name for name in ("o", "p") if name in sketch.tensors and sketch.tensors[name].dtype is DType.INT8]
    with pytest.raises(ConversionError, match=message):
        fuse_fixed_point(sketch.graph(*stored))


# ---- lower_accumulators ---------------------------------------------------------------------------------------------


def test_lower_accumulators_stores_wide_clips_in_int16():
    sketch = Sketch((4, 4, 70)).add(ir.Affine, "a", offset=np.ones(70, np.float32)).sign("s")
    sketch.binary_conv("c", 6, weights=np.zeros((6, 3, 3, 70), np.uint8)).clip("q", bits=9)
    sketch.tensors["q"] = dataclasses.replace(sketch.tensors["q"], dtype=DType.INT16, fraction_bits=(0,))
    graph = sketch.pool("p").exact_norm("n").store("i").graph()
    result = pipeline.lower(graph)
    conv = ops_of(result, ir.BinaryConv2D)[0]
    assert conv.epilogue is Epilogue.FIXED_POINT and not conv.fixed_point.steps and conv.clip_limit == 255
    assert run(result)["q"].max() == 255
    assert_same(float_outputs(graph), result)
