"""The report on a converted model, against numbers worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from converter_support import Sketch

from larq_clip.converter import ir, pipeline, writer
from larq_clip.converter.report import describe
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
    assert binary["weight_bytes"] == 70 * 9 * 8 + 70  # a word a tap, int8 thresholds
    assert (binary["epilogue"], binary["clip_limit"], binary["step"]) == ("Threshold", 127, 2.0)
    assert binary["threshold_dtype"] == "int8" and binary["constant_channels"] == pytest.approx(0.1)
    assert binary["inputs"] == [{"name": "s", "dtype": "bit", "shape": [8, 8, 10]}]
    assert sign["epilogue"] is None and sign["threshold_dtype"] is None and sign["constant_channels"] is None
    assert last["epilogue"] == "Affine" and last["outputs"][0]["dtype"] == "float32"
    assert report["binary_macs"] == binary["binary_macs"] + last["binary_macs"]
    assert report["weight_bytes"] == sum(op["weight_bytes"] for op in report["ops"])
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


def test_bytes_and_graph_give_the_same_report(graph):
    report = describe(graph)
    assert describe(writer.write(graph)) == report
    assert json.loads(json.dumps(report)) == report


def test_garbage_is_refused():
    with pytest.raises(ModelFileError):
        describe(b"garbage")
