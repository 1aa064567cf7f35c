"""Passes behind the fusions, as those of test_passes.py: batch norms, accumulators and activations of the file."""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import Sketch, assert_same, types

from larq_clip.converter import ir, pipeline, spec
from larq_clip.converter.ir import DType, Epilogue
from larq_clip.converter.passes.float_outputs import float_outputs
from larq_clip.converter.passes.fold_batch_norm import fold_batch_norm
from larq_clip.converter.passes.fuse_activations import fuse_activations
from larq_clip.converter.passes.fuse_thresholds import fuse_thresholds
from larq_clip.converter.passes.lower_accumulators import lower_accumulators
from larq_clip.converter.passes.lower_batch_norm import lower_batch_norm

# gamma / sqrt(variance + epsilon) rounded once in float64 instead of three times in float32, then one product and one
# sum each rounded: under 8 units in the last place of the largest intermediate, which here is below 8 times the output.
AFFINE_RTOL = 8 * 8 * 2.0**-24


# ---- fold_batch_norm, lower_batch_norm ------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_fold_batch_norm_into_weights(bias):
    graph = Sketch((5, 5, 3)).conv("c", 8, bias=bias).norm("n", scale=1.0).graph()
    result = fold_batch_norm(graph)
    assert types(result) == ["Conv2D"] and result.ops[0].name == "c+n"
    assert_same(graph, result, approximate=("n",), rtol=27 * AFFINE_RTOL)


def test_fold_batch_norm_does_not_fire():
    before_sign = Sketch((5, 5, 3)).conv("c", 8).norm("n").pool("a", op_type=ir.AveragePool2D).sign("s")
    graph = before_sign.binary_conv("d", 2).graph()
    assert fold_batch_norm(graph) is graph
    relu = Sketch((5, 5, 3)).conv("c", 8, activation=ir.Activation.RELU).norm("n").graph()
    assert fold_batch_norm(relu) is relu
    shared = Sketch((5, 5, 3)).conv("c", 8).norm("n").graph("c", "n")
    assert fold_batch_norm(shared) is shared


def test_lower_batch_norm_to_affine():
    graph = Sketch((5, 5, 3)).conv("c", 8).pool("p").norm("n").graph()
    result = lower_batch_norm(graph)
    assert types(result) == ["Conv2D", "MaxPool2D", "Affine"]
    assert_same(graph, result, approximate=("n",), rtol=AFFINE_RTOL)


def test_lower_batch_norm_does_not_fire():
    graph = Sketch((5, 5, 3)).conv("c", 8).relu("r").graph()
    assert lower_batch_norm(graph) is graph


# ---- lower_accumulators, fuse_activations ---------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, {"step_log2": 1}, {"bits": 10, "step_log2": 1}])
def test_lower_accumulators_takes_an_affine(clip):
    sketch = Sketch((5, 5, 40)).sign("s").binary_conv("c", 8)
    if clip:
        sketch.clip("q", **clip)
    rng = np.random.default_rng(0)
    affine = {"multiplier": rng.normal(size=8).astype("f"), "offset": rng.normal(size=8).astype("f")}
    graph = sketch.add(ir.Affine, "a", **affine).relu("r").graph()
    result = lower_accumulators(graph)
    assert types(result) == ["Bitpack", "BinaryConv2D", "Affine"]
    assert result.ops[1].epilogue is Epilogue.AFFINE
    assert_same(graph, result)


def test_lower_accumulators_stores_int8_where_a_pool_reads_the_clip():
    graph = Sketch((6, 6, 40)).sign("s").binary_conv("c", 8).clip("q", step_log2=1).pool("p").norm("n").graph()
    result = pipeline.lower(graph)
    assert types(result) == ["Bitpack", "BinaryConv2D", "MaxPool2D", "Affine"]
    assert result.ops[1].epilogue is Epilogue.CLIP and result.tensors["p"].dtype is DType.INT8
    assert_same(graph, result, approximate=("n",), rtol=AFFINE_RTOL)


def test_lower_accumulators_stores_float_without_a_clip():
    graph = Sketch((6, 6, 40)).sign("s").binary_conv("c", 8).pool("p").flatten("f").relu("r").graph()
    result = pipeline.lower(graph)
    assert {t.dtype for t in result.tensors.values()} == {DType.FLOAT32, DType.BIT}
    assert_same(graph, result)


@pytest.mark.parametrize("move", ["slice", "depth_to_space", "pool", "flatten"])
def test_lower_accumulators_moves_floats(move):
    sketch = Sketch((6, 6, 5)).sign("s").binary_conv("c", 8)
    if move == "slice":
        sketch.slice("y", (8, 5, 4), begin_h=-1, begin_w=1, begin_c=2)
    elif move == "depth_to_space":
        sketch.depth_to_space("y", 2, 1)
    else:
        getattr(sketch, move)("y")
    graph = float_outputs(sketch.graph())
    result = lower_accumulators(graph)
    assert_same(graph, result)
    spec.check(result, lowered=True)
    assert result.tensors["y"].dtype is DType.FLOAT32


def test_lower_accumulators_does_not_fire_on_thresholds():
    sketch = Sketch((6, 6, 5)).sign("s").binary_conv("c", 8).clip("q").norm("n").sign("t")
    graph = fuse_thresholds(sketch.graph())
    assert types(graph) == ["Bitpack", "BinaryConv2D"] and lower_accumulators(graph).ops == graph.ops


def test_fuse_activations():
    graph = Sketch((5, 5, 3)).conv("c", 8).relu("r").graph()
    result = fuse_activations(graph)
    assert types(result) == ["Conv2D"] and result.ops[0].activation == ir.Activation.RELU
    assert_same(graph, result)


def test_fuse_activations_does_not_fire():
    shared = Sketch((5, 5, 3)).conv("c", 8).relu("r").graph("c", "r")
    assert fuse_activations(shared) is shared
    scaled = (
        Sketch((5, 5, 3)).conv("c", 3).add(ir.Affine, "r", multiplier=np.ones(3, "f"), activation=ir.Activation.RELU)
    )
    assert types(fuse_activations(scaled.graph())) == ["Conv2D", "Affine"]
