"""One HTML page on a converted model: its graph, and what each layer became. Needs nothing but itself to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from larq_clip.converter import ir, reader, report
from larq_clip.converter.html_charts import graph_chart, histogram

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { text-align: left; vertical-align: top; padding: 3px 10px; border-bottom: 1px solid #ddd; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
th { background: #f4f4f4; position: sticky; top: 0; }
.graph rect { stroke: #888; fill: #eee; }
.graph rect.bits, span.bits { fill: #cfe8cf; background: #cfe8cf; }
.graph rect.integers, span.integers { fill: #cfdff5; background: #cfdff5; }
.graph rect.floats, span.floats { fill: #f7d9c4; background: #f7d9c4; }
.graph .edge { fill: none; stroke: #888; }
.histogram rect { fill: #4a7ab5; }
"""
# No script runs and nothing is loaded, whatever a name in the model holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
MACS = ("binary_macs", "int8_macs", "float_macs")
HEADINGS = (
    "op",
    "layers",
    "kernel",
    "input",
    "output",
    "fraction bits",
    "epilogue",
    "binary MACs",
    "int8 MACs",
    "float MACs",
    "weight bytes",
    "activation bytes",
    "thresholds",
    "constant channels",
    "why float32",
)


def render(data: bytes, description: Mapping[str, Any] | None = None) -> str:
    """The page on a model file.

    Args:
        data: the bytes of the file.
        description: of the same file, where it says more than `report.describe` does: ``kernel`` of an op, what
            executes it here.

    Raises:
        larq_clip.ModelFileError: for bytes that are not a model file.
    """
    graph = reader.read(data)
    found = report.describe(data) if description is None else description
    title = f"{found['name']}: what the converter made of it"
    rows = [_op_row(graph, op, described) for op, described in zip(graph.ops, found["ops"], strict=True)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>{escape(title)}</h1>\n{_summary(found)}\n"
        f"<h2>Graph</h2>\n<p>In order of execution; what an op writes first is "
        '<span class="bits">bits</span>, <span class="integers">integers</span> or '
        f'<span class="floats">float32</span>.</p>\n{_graph(graph)}\n'
        f"<h2>Layers</h2>\n<p>{_float_words(found)}</p>\n"
        f"<table><thead><tr>{''.join(f'<th>{escape(h)}</th>' for h in HEADINGS)}</tr></thead>\n"
        f"<tbody>{''.join(rows)}</tbody></table>\n</body></html>\n"
    )


def _summary(found: Mapping[str, Any]) -> str:
    ratio = "" if found["size_ratio"] is None else f", {found['size_ratio']:.3f} times {found['ideal_weight_bytes']:,}"
    rows = [
        ("written by", found["producer"]),
        ("inputs", _tensors(found["inputs"])),
        ("outputs", _tensors(found["outputs"])),
        ("file", f"{found['file_bytes']:,} bytes{ratio}, its weights without padding"),
        ("weights", f"{found['weight_bytes']:,} bytes"),
        (
            "activation arena",
            f"{found['arena_bytes']:,} bytes, {found['arena_ratio']:.3f} times "
            f"{found['arena_lower_bound_bytes']:,}, what must live at once",
        ),
        ("multiply-accumulates", ", ".join(f"{found[key]:,} {key.split('_')[0]}" for key in MACS)),
    ]
    if "session_bytes" in found:
        rows.append(("session", f"{found['session_bytes']:,} bytes with one thread ({found['isa']})"))
    return "<table>" + "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows) + "</table>"


def _tensors(tensors: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{t['name']} {t['dtype']} {'x'.join(map(str, t['shape']))}" for t in tensors)


def _float_words(found: Mapping[str, Any]) -> str:
    floats = sum(op["float_reason"] is not None for op in found["ops"])
    words = f"{floats} of {len(found['ops'])} ops read or write float32. "
    if any(op["float_macs"] for op in found["ops"]):
        words += "larq_clip.models.quantize_model makes integers of all but the image and the outputs. "
    return escape(words + "Constant channels have the same sign for every input: their thresholds are out of reach.")


def _graph(graph: ir.Graph) -> str:
    place = {op: i for i, op in enumerate(graph.ops, len(graph.inputs))}
    inputs = {name: i for i, name in enumerate(graph.inputs)}
    labels = [f"input {name}" for name in graph.inputs] + [f"{op.type}: {op.name}" for op in graph.ops]
    firsts = [graph.tensors[name] for name in graph.inputs] + [graph.result(op) for op in graph.ops]
    edges = []
    for op in graph.ops:
        for name in op.inputs:
            producer = graph.producer(name)
            edges.append((inputs[name] if producer is None else place[producer], place[op]))
    return graph_chart(labels, [_kind(tensor.dtype) for tensor in firsts], edges)


def _kind(dtype: ir.DType) -> str:
    return {ir.DType.BIT: "bits", ir.DType.FLOAT32: "floats"}.get(dtype, "integers")


def _op_row(graph: ir.Graph, op: ir.Op, found: Mapping[str, Any]) -> str:
    signs = report.signs(graph, op)
    charts = "".join(histogram(s.thresholds, float(s.low.min()), float(s.high.max())) for s in signs)
    constant = found["constant_channels"]
    texts = [
        found["type"],
        ", ".join(op.name.split("+")),
        found.get("kernel") or "",
        _tensors(found["inputs"]),
        _tensors(found["outputs"]),
        "; ".join(filter(None, map(_fraction_bits, found["outputs"]))),
        _epilogue(found),
    ]
    numbers = [*(found[key] for key in MACS), found["weight_bytes"], found["activation_bytes"]]
    cells = [f"<td>{escape(text)}</td>" for text in texts]
    cells += [f'<td class="number">{number:,}</td>' if number else "<td></td>" for number in numbers]
    cells.append(f"<td>{charts}</td>")
    cells.append(f'<td class="number">{"" if constant is None else f"{constant:.1%}"}</td>')
    cells.append(f"<td>{escape(found['float_reason'] or '')}</td>")
    return f"<tr>{''.join(cells)}</tr>\n"


def _fraction_bits(tensor: Mapping[str, Any]) -> str:
    bits = tensor["fraction_bits"]
    if not bits:
        return "0" if tensor["dtype"] in ("int8", "int16") else ""
    return str(bits[0]) if min(bits) == max(bits) else f"{min(bits)} to {max(bits)} by channel"


def _epilogue(found: Mapping[str, Any]) -> str:
    words = []
    if found["clip_limit"]:
        words.append(f"clip ±{found['clip_limit']}, step {found['step']:g}")
    if found["fixed_point"]:
        words.append(", ".join(found["fixed_point"]))
    elif found["epilogue"]:
        words.append(found["epilogue"].lower())
    return "; ".join(words)
