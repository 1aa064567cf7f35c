"""The ops between the layers of plain models: their evaluators against plain formulas, and the rules that they keep."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from converter_support import Sketch, dyadic, run

from larq_clip.converter import ir, pipeline, spec
from larq_clip.converter.ir import DType, Tensor


def test_arithmetic_repeats_axes_of_one():
    sketch = Sketch((3, 4, 5)).pool("mean", 1).slice("one", (1, 1, 5)).slice("flat", (3, 4, 1), source="x")
    sketch.arithmetic("a", "subtract", "one", source="x").arithmetic("b", "multiply", "flat")
    sketch.arithmetic("c", "maximum", "x", source="flat").arithmetic("d", "minimum", "one", source="flat")
    arrays = run(sketch.graph("b", "c", "d"))
    x, one, flat = arrays["x"], arrays["one"], arrays["flat"]
    np.testing.assert_array_equal(arrays["b"], (x - one) * flat)
    np.testing.assert_array_equal(arrays["c"], np.maximum(flat, x))
    assert arrays["d"].shape == (4, 3, 4, 5)
    np.testing.assert_array_equal(arrays["d"], np.minimum(flat, one))


def test_vectors_scale_images():
    sketch = Sketch((3, 4, 5)).slice("pixel", (1, 1, 5)).flatten("vector").arithmetic("y", "add", "x")
    arrays = run(sketch.graph())
    np.testing.assert_array_equal(arrays["y"], arrays["x"] + arrays["x"][:, :1, :1])


@pytest.mark.parametrize("shared", [(True, True, False), (False, False, False), (True, False, True)])
def test_prelu(shared):
    arrays = run(graph := Sketch((3, 4, 5)).prelu("y", shared).graph())
    x, slope = arrays["x"], graph.ops[0].slope
    assert slope.shape == tuple(1 if one else axis for one, axis in zip(shared, (3, 4, 5)))
    np.testing.assert_array_equal(arrays["y"], np.where(x >= 0, x, x * slope))


@pytest.mark.parametrize("low, high", [(0, 6), (-0.25, 0.25), (-math.inf, 0.5), (0.1, math.inf)])
def test_activations_clip(low, high):
    arrays = run(Sketch((3, 4, 5)).add(ir.Affine, "y", activation=ir.Activation(low, high)).graph())
    np.testing.assert_array_equal(arrays["y"], np.clip(arrays["x"], np.float32(low), np.float32(high)))


@pytest.mark.parametrize("ends", [(1, 0), (math.inf, math.inf), (-math.inf, -math.inf), (math.nan, 1), (0, math.nan)])
def test_activations_need_two_ends(ends):
    with pytest.raises(ValueError, match="an activation clips to"):
        ir.Activation(*ends)


def test_sigmoid_and_tanh():
    x = np.array([[-200, -30, -1, -1e-7, 0, 1e-7, 0.5, 30, 200]], np.float32)
    ends = [Tensor(name, DType.FLOAT32, (9,)) for name in "xy"]
    sigmoid = ir.Function("", (), (), ir.FunctionKind.SIGMOID).compute(x, *ends)
    tanh = ir.Function("", (), (), ir.FunctionKind.TANH).compute(x, *ends)
    assert sigmoid.dtype == tanh.dtype == np.float32
    wide = x.astype(np.longdouble)
    np.testing.assert_allclose(sigmoid, (1 / (1 + np.exp(-wide))).astype("f"), rtol=2**-23)
    np.testing.assert_allclose(tanh, np.tanh(wide).astype("f"), rtol=2**-23)


@pytest.mark.parametrize("groups", [2, 6])
def test_grouped_convolutions_are_convolutions_of_slices(groups):
    graph = Sketch((5, 4, 6)).conv("y", 12, groups=groups, bias=True).graph()
    arrays, (op,) = run(graph), graph.ops
    each, depth = 12 // groups, 6 // groups
    for g in range(groups):
        part = dataclasses.replace(
            op, groups=1, weights=op.weights[..., each * g : each * (g + 1)], bias=op.bias[each * g : each * (g + 1)]
        )
        ends = Tensor("x", DType.FLOAT32, (5, 4, depth)), Tensor("y", DType.FLOAT32, (5, 4, each))
        y = part.compute(arrays["x"][..., depth * g : depth * (g + 1)], *ends)
        np.testing.assert_array_equal(arrays["y"][..., each * g : each * (g + 1)], y)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("invert", [False, True])
def test_bit_planes_are_the_bits_of_levels(count, invert):
    mask = np.array([0, 1, 1, 0, 1], np.uint8) if invert else None
    graph = Sketch((3, 4, 5)).planes("p", count, invert=mask).graph(*(f"p{j}" for j in range(count)))
    arrays = run(graph)
    level = (arrays["x"][..., None, :] >= graph.ops[0].thresholds).sum(-2)
    assert len(np.unique(level)) == 2**count
    if mask is not None:
        level = np.where(mask, 2**count - 1 - level, level)
    planes = [ir.values(arrays[f"p{j}"], graph.tensors[f"p{j}"]) for j in range(count)]
    np.testing.assert_array_equal(sum(2**j * (plane + 1) / 2 for j, plane in enumerate(planes)), level)


def test_a_convolution_of_levels_is_a_sum_over_planes():
    """sum w n = (sum_j 2^j conv(plane_j, w, pad_value -1) + (2^k - 1) sum w) / 2, at the border too."""
    sketch = Sketch((4, 5, 6)).planes("p", 2)
    sketch.binary_conv("c0", 3, source="p0", pad_value=-1)
    weights = sketch.ops[-1].weights
    graph = sketch.binary_conv("c1", 3, source="p1", pad_value=-1, weights=weights).graph("c0", "c1")
    arrays, signs = run(graph), 1 - 2 * weights.astype(np.int64)
    level = (arrays["x"][..., None, :] >= graph.ops[0].thresholds).sum(-2)
    conv = ir.Conv2D("", (), (), graph.ops[1].window, signs.transpose(1, 2, 3, 0).astype(np.float32))
    ends = Tensor("x", DType.FLOAT32, (4, 5, 6)), Tensor("y", DType.FLOAT32, (4, 5, 3))
    expected = conv.compute(level.astype(np.float32), *ends)
    found = (arrays["c0"] + 2 * arrays["c1"] + 3 * signs.sum((1, 2, 3))) / 2
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.INT8, DType.BIT])
def test_slices_crop_and_pad(dtype):
    sketch = Sketch((3, 4, 5))
    if dtype is not DType.FLOAT32:
        sketch = sketch.quantize("q", fraction_bits=(6,)) if dtype is DType.INT8 else sketch.sign("q")
    arrays = run(
        sketch.slice("crop", (2, 2, 5), begin_h=1, begin_w=2, source=sketch.last)
        .slice("pad", (4, 9, 5), begin_h=-2, begin_w=-3, value=-1)
        .graph("pad")
    )
    x = arrays.get("q", arrays["x"])
    np.testing.assert_array_equal(arrays["crop"], x[:, 1:3, 2:4])
    expected = np.pad(arrays["crop"], ((0, 0), (2, 0), (3, 4), (0, 0)), constant_values=1 if dtype is DType.BIT else -1)
    np.testing.assert_array_equal(arrays["pad"], expected)


def test_slices_of_channels_and_beyond():
    sketch = Sketch((3, 4, 5)).quantize("q", fraction_bits=(1, 2, 3, 4, 5))
    sketch.add(ir.Slice, "y", DType.INT8, (3, 4, 4), None, (4, 5, 0, 7), begin_c=3, value=9)
    arrays = run(sketch.graph())
    np.testing.assert_array_equal(arrays["y"][..., :2], arrays["q"][..., 3:])
    assert np.all(arrays["y"][..., 2:] == 9)
    outside = run(Sketch((3, 4, 5)).slice("y", (2, 2, 5), begin_h=3, value=0.5).graph())["y"]
    assert outside.shape == (4, 2, 2, 5) and np.all(outside == 0.5)


def test_depth_to_space():
    arrays = run(Sketch((2, 3, 12)).depth_to_space("y", 2, 3).graph())
    for y, x, c in np.ndindex(4, 9, 2):
        np.testing.assert_array_equal(
            arrays["y"][:, y, x, c], arrays["x"][:, y // 2, x // 3, (y % 2 * 3 + x % 3) * 2 + c]
        )


def test_rows_are_images_of_height_one():
    """Tensors (length, channels) through convolutions, pools and norms, as images (1, length, channels)."""
    sketches = [Sketch(shape).sign("s") for shape in ((7, 6), (1, 7, 6))]
    window, _ = ir.Window.place((7, 6), (1, 3), (1, 2), padding="same")
    weights = np.random.default_rng(0).integers(0, 2, (5, 1, 3, 6)).astype(np.uint8)
    results = []
    for sketch in sketches:
        shape = (*sketch.tensors["x"].shape[:-2], 4, 5)
        sketch.add(ir.BinaryConv2D, "c", DType.INT32, shape, window=window, weights=weights).clip("q").norm("n")
        sketch.add(ir.MaxPool2D, "p", shape=(*shape[:-2], 2, 5), window=ir.Window(1, 2, 1, 2)).flatten("f").sign("t")
        sketch.binary_conv("d", 3, kernel=1).norm("m")
        graph = sketch.graph()
        lowered = pipeline.lower(graph)
        x = {"x": dyadic(np.random.default_rng(1), (4, *graph.tensors["x"].shape))}
        results += [ir.evaluate(graph, x)["m"], ir.evaluate(lowered, x)["m"]]
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[1], results[3])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5)  # the last norm, folded, rounds otherwise


# ---- Rules ----------------------------------------------------------------------------------------------------------


def wrong(sketch: Sketch, message: str, **fields) -> None:
    """The last op with other fields, or its output with another shape, type or fraction bits, is refused."""
    good = sketch.graph(*sketch.ops[-1].outputs)
    tensor = {k: fields.pop(k) for k in ("dtype", "shape", "fraction_bits") if k in fields}
    ops = (*good.ops[:-1], dataclasses.replace(good.ops[-1], **fields))
    table = {**good.tensors}
    table[sketch.last] = dataclasses.replace(table[sketch.last], **tensor)
    with pytest.raises(spec.SpecError, match=message):
        spec.check(ir.Graph(good.name, table, ops, good.inputs, good.outputs))


def image() -> Sketch:
    return Sketch((4, 6, 8))


ONES = np.ones((3, 8), np.float32)

CASES = {
    "arity": (image().arithmetic("y", "add", "x"), "2 inputs|has 1 inputs", {"inputs": ("x",)}),
    "arithmetic type": (image().arithmetic("y", "add", "x"), "float32 to float32", {"dtype": DType.INT16}),
    "arithmetic shape": (image().arithmetic("y", "add", "x"), "longer one", {"shape": (4, 6, 1)}),
    "arithmetic axes": (image().slice("s", (4, 6, 1)).arithmetic("y", "add", "x"), "longer one", {"shape": (4, 1, 8)}),
    "slope": (image().prelu("y"), "its slope is finite", {"slope": np.full((1, 1, 8), np.nan, np.float32)}),
    "slope axes": (image().prelu("y"), "its slope is finite", {"slope": np.ones((1, 2, 8), np.float32)}),
    "slope rank": (image().prelu("y"), "its slope is finite", {"slope": np.ones(8, np.float32)}),
    "slope type": (image().prelu("y"), "its slope is finite", {"slope": np.ones((1, 1, 8))}),
    "prelu shape": (image().prelu("y"), "it keeps the shape", {"shape": (4, 8, 6)}),
    "function type": (image().add(ir.Function, "y", kind=ir.FunctionKind.TANH), "float32 to", {"dtype": DType.INT8}),
    "groups": (image().conv("y", 6, groups=2), "groups divide", {"groups": 3}),
    "group weights": (image().conv("y", 8, groups=2), "its weights are finite", {"groups": 4}),
    "planes": (image().planes("p", 2), "its thresholds are", {"thresholds": np.ones((2, 8), np.float32)}),
    "no thresholds": (image().planes("p", 2), "its thresholds are", {"thresholds": None}),
    "falling": (image().planes("p", 2), "ascending", {"thresholds": ONES * np.float32([[1], [3], [2]])}),
    "four planes": (image().planes("p", 3), "has 1 inputs and 4", {"outputs": ("p0", "p1", "p2", "p3")}),
    "plane shape": (image().planes("p", 2), "outputs are bits of its input", {"shape": (4, 6, 7)}),
    "slice type": (image().slice("y", (1, 1, 8)), "it keeps the type", {"dtype": DType.INT32}),
    "slice begin": (image().slice("y", (1, 1, 8)), "its begins are within", {"begin_w": -(1 << 25)}),
    "slice value": (image().slice("y", (1, 1, 8)), "its value is", {"value": math.inf}),
    "slice double": (image().slice("y", (1, 1, 8)), "its value is", {"value": 0.1}),
    "slice int8": (image().quantize("q").slice("y", (5, 6, 8)), "its value is", {"value": 128.0}),
    "slice half": (image().quantize("q").slice("y", (5, 6, 8)), "its value is", {"value": 0.5}),
    "slice bit": (image().sign("q").slice("y", (5, 6, 8), value=1), "its value is", {"value": 0.0}),
    "slice bits": (image().quantize("q").slice("y", (4, 6, 8)), "keeps the fraction bits", {"fraction_bits": (1,)}),
    "slice words": (image().sign("q").slice("y", (4, 6, 8)), "bits keep their words", {"shape": (4, 6, 7)}),
    "slice word": (
        Sketch((1, 1, 70)).sign("q").slice("y", (1, 1, 6), begin_c=64),
        "bits keep their words",
        {"begin_c": 63},
    ),
    "block": (image().depth_to_space("y", 2, 2), "its input is .height", {"block_h": 0}),
    "block shape": (image().depth_to_space("y", 2, 2), "its input is .height", {"block_h": 4, "block_w": 1}),
    "block bits": (
        Sketch((1, 1, 256)).sign("q").depth_to_space("y", 2, 2),
        "multiple of 64",
        {"shape": (4, 2, 32), "block_h": 4},
    ),
    "concatenate": (image().join("y", "x", "x"), "reads int8 and int16, or else", {"dtype": DType.INT8}),
}


@pytest.mark.parametrize("case", CASES)
def test_rules(case):
    sketch, message, fields = CASES[case]
    wrong(sketch, message, **fields)
