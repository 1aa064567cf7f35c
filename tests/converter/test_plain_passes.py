"""Passes on the graphs of plain models: what fires, what it leaves equal, and what does not fire."""

from __future__ import annotations

import numpy as np
from converter_support import Sketch, assert_same, types

from larq_clip.converter import ir
from larq_clip.converter.passes.lower_batch_norm import lower_batch_norm

# An affine op rounds twice in either form, a batch norm in front of that twice more: a few units of the last place.
AFFINE_RTOL = 2.0**-20


def scaled(activation: ir.Activation = ir.Activation.NONE) -> Sketch:
    """A binary convolution times a scale per filter, then a batch norm: BatchNorm "n" of Affine "a"."""
    sketch = Sketch((5, 5, 40)).sign("s").binary_conv("c", 8)
    constants = {
        "multiplier": sketch.rng.uniform(0.1, 1, 8).astype("f"),
        "offset": sketch.rng.normal(size=8).astype("f"),
    }
    return sketch.add(ir.Affine, "a", activation=activation, **constants).norm("n")


def test_lower_batch_norm_takes_the_scale_of_a_kernel():
    graph = scaled().graph()
    result = lower_batch_norm(graph)
    assert types(result) == ["Bitpack", "BinaryConv2D", "Affine"] and result.ops[-1].name == "a+n"
    assert_same(graph, result, approximate=("n",), rtol=AFFINE_RTOL)


def test_lower_batch_norm_leaves_other_affine_ops():
    """One with an activation, and one that something else reads."""
    for graph in (scaled(ir.Activation.RELU).graph(), scaled().graph("a", "n")):
        result = lower_batch_norm(graph)
        assert types(result) == ["Bitpack", "BinaryConv2D", "Affine", "Affine"]
        assert_same(graph, result, approximate=("n",), rtol=AFFINE_RTOL)


def test_what_keras_sums_product_by_product_says_so_and_changes_nothing():
    """`largest_sum` is for the comparison with Keras only."""
    constants = {"multiplier": np.full(3, 0.3, "f")}
    plain = Sketch((4, 4, 3)).add(ir.Affine, "a", **constants).graph()
    summed = Sketch((4, 4, 3)).add(ir.Affine, "a", largest_sum=1000, **constants).graph()
    assert_same(plain, summed)
