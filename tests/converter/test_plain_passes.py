"""Passes on the graphs of plain models: what fires, what it leaves equal, and what does not fire."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from converter_support import Sketch, assert_same, types

from larq_clip.converter import ir
from larq_clip.converter.passes.fuse_levels import fuse_levels
from larq_clip.converter.passes.fuse_thresholds import fuse_thresholds
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


def levels(sketch: Sketch, planes: int = 2) -> ir.Graph:
    """The bit planes of a sketch's last tensor, as outputs of binary convolutions."""
    from larq_clip.converter.ir import DType, Tensor

    source = sketch.tensors[sketch.last]
    steps = np.linspace(-1, 2, 2**planes - 1, dtype=np.float32)[:, None]
    bits = [Tensor(f"b{j}", DType.BIT, source.shape) for j in range(planes)]
    sketch.tensors |= {tensor.name: tensor for tensor in bits}
    thresholds = np.repeat(steps, source.channels, axis=1)
    sketch.ops.append(ir.Bitpack("b", (source.name,), tuple(t.name for t in bits), thresholds))
    for j, tensor in enumerate(bits):
        sketch.binary_conv(f"d{j}", 3, kernel=1, source=tensor.name)
    return sketch.graph(*(f"d{j}" for j in range(planes)))


@pytest.mark.parametrize("planes", [2, 3])
@pytest.mark.parametrize("start", ["float", "accumulator"])
def test_fuse_levels(start, planes):
    """Batch norms with scales of both signs and 0: levels on the tensor in front of them."""
    sketch = Sketch((5, 5, 9))
    sketch = sketch.conv("c", 8) if start == "float" else sketch.sign("s").binary_conv("c", 8)
    graph = levels(sketch.norm("n", scale=2.0).relu("r"), planes)
    result = fuse_levels(graph)
    assert not {"BatchNorm", "Affine"} & set(types(result))
    (pack,) = (op for op in result.ops if len(op.outputs) > 1)
    assert pack.invert is not None and pack.thresholds.shape == (2**planes - 1, 8)
    assert_same(graph, result)


def test_fuse_levels_moves_pools_where_all_channels_rise():
    sketch = Sketch((6, 6, 9)).conv("c", 8).norm("n", scale=2.0)
    norm = sketch.ops[-1]
    sketch.ops[-1] = dataclasses.replace(norm, gamma=np.abs(norm.gamma))
    graph = levels(sketch.pool("p"))
    result = fuse_levels(graph)
    assert types(result)[:3] == ["Conv2D", "MaxPool2D", "Bitpack"]
    assert_same(graph, result)


def test_fuse_levels_does_not_fire():
    """Behind a pool whose batch norm falls, behind a pool alone, and directly behind a convolution."""
    for sketch in (
        Sketch((6, 6, 9)).conv("c", 8).norm("n").pool("p"),
        Sketch((6, 6, 9)).conv("c", 8).pool("p"),
        Sketch((6, 6, 9)).conv("c", 8),
    ):
        graph = levels(sketch)
        assert fuse_levels(graph) is graph


def test_fuse_thresholds_takes_a_quantizer_to_0_and_1():
    """Bits with a threshold of their own behind a batch norm become a convolution's thresholds."""
    sketch = Sketch((5, 5, 9)).sign("s").binary_conv("c", 8).norm("n")
    graph = sketch.sign("t", thresholds=np.full(8, 0.5, np.float32)).binary_conv("d", 3).graph()
    result = fuse_thresholds(graph)
    assert types(result) == ["Bitpack", "BinaryConv2D", "BinaryConv2D"]
    assert_same(graph, result)


def test_what_keras_sums_product_by_product_says_so_and_changes_nothing():
    """`largest_sum` is for the comparison with Keras only."""
    constants = {"multiplier": np.full(3, 0.3, "f")}
    plain = Sketch((4, 4, 3)).add(ir.Affine, "a", **constants).graph()
    summed = Sketch((4, 4, 3)).add(ir.Affine, "a", largest_sum=1000, **constants).graph()
    assert_same(plain, summed)
