"""The report on a converted model, against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from converter_support import Sketch

from larq_clip.converter import ir, pipeline, writer
from larq_clip.converter.report import describe, signs
from larq_clip.errors import ModelFileError


@pytest.fixture(scope="module")
def graph() -> ir.Graph:
    sketch = Sketch((8, 8, 3)).conv("first", 10, bias=True).sign("s")
    sketch.binary_conv("b", 70).clip("q", step_log2=1)
    gamma = np.ones(70, np.float32)
    gamma[:7] = 0
    zero = np.zeros(70, np.float32)
    sketch.add(ir.BatchNorm, "n", gamma=gamma, beta=zero, mean=zero, variance=gamma * 0 + 1, epsilon=1e-3)
    sketch.pool("p").sign("t").binary_conv("d", 5, kernel=1)
    return pipeline.lower(sketch.graph())


def test_numbers(graph):
    report = describe(graph)
    first, sign, binary, pool, last = report["ops"]
    assert [op["type"] for op in report["ops"]] == ["Conv2D", "Bitpack", "BinaryConv2D", "BitMaxPool2D", "BinaryConv2D"]
    assert first["float_macs"] == 8 * 8 * 3 * 3 * 3 * 10 and first["binary_macs"] == 0
    assert first["weight_bytes"] == 4 * (3 * 3 * 3 * 10 + 10)
    assert binary["name"] == "b+q+n" and pool["name"] == "p"
    assert binary["binary_macs"] == 8 * 8 * 70 * 3 * 3 * 10
    assert binary["weight_bytes"] == -(-70 * 90 // 64) * 8 + 70  # words without gaps, int8 thresholds
    assert (binary["epilogue"], binary["clip_limit"], binary["step"]) == ("Threshold", 127, 2.0)
    assert binary["threshold_dtype"] == "int8" and binary["constant_channels"] == pytest.approx(0.1)
    assert binary["inputs"] == [
        {"name": "s", "dtype": "bit", "shape": [8, 8, 10], "fraction_bits": [], "bytes": 8 * 8 * 8}
    ]
    assert binary["activation_bytes"] == 8 * 8 * 2 * 8
    assert sign["epilogue"] is None and sign["threshold_dtype"] is None and sign["constant_channels"] is None
    assert last["epilogue"] == "Affine" and last["outputs"][0]["dtype"] == "float32"
    assert report["binary_macs"] == binary["binary_macs"] + last["binary_macs"]
    assert report["weight_bytes"] == sum(op["weight_bytes"] for op in report["ops"])
    assert report["size_ratio"] == report["file_bytes"] / report["ideal_weight_bytes"]
    assert report["arena_ratio"] == report["arena_bytes"] / report["arena_lower_bound_bytes"]
    ideal = 4 * 280 + (70 * 90 + 8 * 70 + 7) // 8 + (5 * 70 + 2 * 5 * 32 + 7) // 8
    assert report["ideal_weight_bytes"] == ideal < report["weight_bytes"] < report["file_bytes"]
    assert report["arena_lower_bound_bytes"] <= report["arena_bytes"]


def test_fixed_point():
    sketch = Sketch((4, 4, 5)).quantize("i", fraction_bits=(3,)).int8_conv("c", 6).exact_norm("n").store("s")
    sketch.sign("t", source="n").binary_conv("b", 6).clip("q").exact_norm("m").sum("y", "s").exact_relu("r").store("o")
    report = describe(pipeline.lower(sketch.graph("o")))
    quantize, conv, binary, output = report["ops"]
    assert [op["type"] for op in report["ops"]] == ["Quantize", "Int8Conv2D", "BinaryConv2D", "Affine"]
    assert sorted(conv["fixed_point"][1:]) == ["bit", "int8"] and conv["fixed_point"][0] == "affine"
    assert conv["int8_macs"] == report["int8_macs"] == 4 * 4 * 6 * 9 * 5 and conv["epilogue"] is None
    assert conv["weight_bytes"] == 6 * 9 * 5 + 6 * (4 + 8) + 6  # weights, norm, shifts
    assert binary["epilogue"] == "FixedPoint" and binary["fixed_point"] == ["affine", "add", "relu", "int8"]
    assert quantize["fixed_point"] is None and output["fixed_point"] is None and quantize["int8_macs"] == 0
    assert [tensor["name"] for tensor in binary["inputs"]] == ["t", "s"]
    assert binary["inputs"][1]["fraction_bits"] == [0] and binary["inputs"][1]["bytes"] == 4 * 4 * 6
    assert conv["activation_bytes"] == 4 * 4 * 6 + 4 * 4 * 8


def test_bytes_and_graph_give_the_same_report(graph):
    report = describe(graph)
    assert describe(writer.write(graph)) == report
    assert json.loads(json.dumps(report)) == report


def test_garbage_is_refused():
    with pytest.raises(ModelFileError):
        describe(b"garbage")


@pytest.mark.parametrize(
    "thresholds, constant",
    [
        # y = 3 v + 5 of v in [-127, 127] is in [-376, 386], and > 385 only where v = 127.
        ([-377, -376, 385, 386, 0, -(1 << 40)], [True, False, False, True, False, True]),
        ([0] * 6, [False] * 6),
    ],
)
def test_signs_out_of_reach(thresholds, constant):
    sketch = Sketch((4, 4, 5)).sign("s").binary_conv("b", 6, kernel=1, pad_value=1, clip_limit=127)
    steps = ir.affine_step(np.full(6, 3), np.full(6, 5))
    op = sketch.ops.pop()
    fixed = ir.FixedPoint(steps, (ir.Store(thresholds=np.array(thresholds, np.int64)),))
    op = dataclasses.replace(op, epilogue=ir.Epilogue.FIXED_POINT, fixed_point=fixed)
    sketch.ops.append(op)
    sketch.tensors["b"] = dataclasses.replace(sketch.tensors["b"], dtype=ir.DType.BIT)
    graph = sketch.graph()
    (found,) = signs(graph, op)
    assert found.is_constant.tolist() == constant
    assert describe(pipeline.lower(graph))["ops"][1]["constant_channels"] == np.mean(constant)


def test_signs_of_numbers():
    def of(dtype, thresholds):
        sketch = Sketch((len(thresholds),))
        sketch = sketch if dtype == np.float32 else sketch.quantize("q", ir.DType.INT8)
        graph = pipeline.lower(sketch.sign("s", thresholds=np.array(thresholds, dtype)).graph())
        return signs(graph, graph.ops[-2])[0].is_constant.tolist()

    assert of(np.int8, [-128, -127, 126, 127]) == [True, False, False, True]
    assert of(np.float32, [-np.inf, -3e38, 0, 3e38, np.inf]) == [True, False, False, False, True]
