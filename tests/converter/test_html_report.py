"""The page on a converted model: well-formed, self-contained, every layer in it, and no name is taken for HTML."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from converter_support import Sketch

from larq_clip.cli.inspect import describe_bytes
from larq_clip.converter import html_report, ir, pipeline, reader, report, writer
from larq_clip.converter.float_reasons import float_reason
from larq_clip.converter.html_charts import graph_chart, histogram
from larq_clip.converter.ir import DType

EVIL = """<script src="//example.org/x.js">alert('&')</script>"""
VOID = {"meta"}


class Page(HTMLParser):
    """Tags with their attributes, texts, and rows of tables; fails where tags are not closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def residual(name: str = "block") -> ir.Graph:
    """int8, bits and float32: a stem, a binary block with a shortcut, a dense layer and its softmax."""
    sketch = Sketch((4, 4, 3)).quantize("image8", fraction_bits=(5,)).int8_conv("stem", 8).exact_norm("norm")
    sketch.store("stored", fraction_bits=(3,)).sign("s", source="norm").binary_conv(name, 8).clip("q")
    sketch.exact_norm("m").sum("y", "stored").store("o", fraction_bits=(2,)).sign("t", source="y")
    sketch.binary_conv("last", 5, kernel=1).clip("p").norm("n").add(ir.Softmax, "scores")
    return pipeline.lower(sketch.graph("o", "scores"))


@pytest.fixture(scope="module")
def data() -> bytes:
    return writer.write(residual())


def op_rows(page: Page) -> list[dict[str, str]]:
    start = next(i for i, row in enumerate(page.rows) if row[0] == "op")
    return [dict(zip(page.rows[start], row, strict=True)) for row in page.rows[start + 1 :]]


def test_every_layer_and_number(data):
    found, graph = describe_bytes(data), reader.read(data)
    page = Page(html_report.render(data, found))
    rows = op_rows(page)
    assert len(rows) == len(graph.ops) == len(found["ops"])
    for row, op, described in zip(rows, graph.ops, found["ops"], strict=True):
        assert row["op"] == op.type and row["layers"].split(", ") == op.name.split("+")
        assert row["kernel"] == described["kernel"] != ""
        for heading in ("binary MACs", "int8 MACs", "float MACs", "weight bytes", "activation bytes"):
            number = described[heading.replace(" MACs", "_macs").replace(" ", "_")]
            assert row[heading] == (f"{number:,}" if number else "")
        assert row["why float32"] == (float_reason(graph, op) or "")
        assert all(f"{t.name} {t.dtype.name.lower()}" in row["output"] for t in graph.results(op))
    binary = next(row for row in rows if row["op"] == "BinaryConv2D" and "block" in row["layers"])
    assert "clip ±127, step 1" in binary["epilogue"] and "add" in binary["epilogue"]
    assert binary["fraction bits"] == "2"
    assert f"{found['arena_ratio']:.3f} times" in page.text and f"{found['size_ratio']:.3f} times" in page.text


def test_it_is_self_contained(data):
    text = html_report.render(data)
    page = Page(text)
    assert not re.search(r"https?:|//|url\(|@import", text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    names = {name for _, attributes in page.tags for name in attributes}
    assert not {"src", "href", "srcset", "action"} & names and not any(name.startswith("on") for name in names)
    policy = next(attributes for tag, attributes in page.tags if tag == "meta" and "content" in attributes)
    assert policy == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'",
    }
    for chart in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(chart)


def test_names_are_text(data):
    graph = residual(EVIL)
    tensors = {t.name: dataclasses.replace(t, name=t.name.replace("stored", EVIL)) for t in graph.tensors.values()}
    ops = [
        dataclasses.replace(
            op, inputs=tuple(tensors[t].name for t in op.inputs), outputs=tuple(tensors[t].name for t in op.outputs)
        )
        for op in graph.ops
    ]
    outputs = [tensors[name].name for name in graph.outputs]
    evil = ir.Graph.build(EVIL, tensors.values(), ops, graph.inputs, outputs)
    text = html_report.render(writer.write(evil))
    page, plain = Page(text), Page(html_report.render(data))
    assert "<script" not in text and page.text.count(EVIL) > 4
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}
    for chart in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(chart)


def test_the_graph_has_every_edge(data):
    graph = reader.read(data)
    chart = re.search(r'<svg class="graph".*?</svg>', html_report.render(data), re.S).group()
    root = ElementTree.fromstring(chart)
    assert len(root.findall("rect")) == len(graph.inputs) + len(graph.ops)
    assert len(root.findall("path")) == len({(graph.producer(name), op) for op in graph.ops for name in op.inputs})
    kinds = [rect.get("class") for rect in root.findall("rect")]
    first = [graph.tensors["x"], *(graph.result(op) for op in graph.ops)]
    assert kinds == [{DType.FLOAT32: "floats", DType.BIT: "bits"}.get(t.dtype, "integers") for t in first]


def test_arcs_that_overlap_have_lanes_of_their_own():
    edges = [(0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (4, 6)]
    root = ElementTree.fromstring(graph_chart([f"op {i}" for i in range(7)], ["bits"] * 7, edges))
    paths = [path.get("d") for path in root.findall("path")]
    found = [re.match(r"M\d+ (\d+) H(\d+) Q.* (\d+) H\d+$", path) for path in paths]
    arcs = [tuple(map(int, match.groups())) for match in found if match]
    assert len(paths) == 6 and len(arcs) == 5
    for i, (top, lane, bottom) in enumerate(arcs):
        for other_top, other_lane, other_bottom in arcs[:i]:
            assert lane != other_lane or bottom <= other_top or other_bottom <= top


def test_histograms():
    root = ElementTree.fromstring(histogram(np.array([-127, -127, 0, 126, -128, 127], np.int8), -127, 127))
    assert sum(int(bar.find("title").text) for bar in root.findall("rect")) == 4, "two are out of reach"
    assert [text.text for text in root.findall("text")] == ["-127", "127"]
    floats = histogram(np.array([-np.inf, 1.5, 2.5, np.inf], np.float32), -3e38, np.inf)
    assert sum(int(bar.find("title").text) for bar in ElementTree.fromstring(floats).findall("rect")) == 2
    assert histogram(np.array([200, -200]), -127, 127) == ""


def test_why_float():
    graph = residual()
    reasons = {op.type: float_reason(graph, op) for op in graph.ops}
    assert reasons["Quantize"] == "makes integers of the image, which is float32"
    assert reasons["Softmax"] == "softmax is computed in float32"
    assert reasons["Int8Conv2D"] is None
    assert {float_reason(graph, op) for op in graph.ops if op.type == "BinaryConv2D"} == {
        None,
        "what follows its accumulator was not quantized",
    }
    assert "writes an output of the model, which is float32" in reasons.values()
    plain = pipeline.lower(Sketch((4, 4, 3)).conv("c", 8).pool("p", op_type=ir.AveragePool2D).sign("s").graph())
    found = [float_reason(plain, op) for op in plain.ops]
    assert found[0] == "a layer of full precision: its kernel is float32"
    assert "makes bits of float32" in found and "its input 'c' is float32" in found
    assert found == [op["float_reason"] for op in report.describe(plain)["ops"]]
    tensors = [{plain.tensors[t].dtype for t in (*op.inputs, *op.outputs)} for op in plain.ops]
    assert [DType.FLOAT32 in kinds for kinds in tensors] == [reason is not None for reason in found]
