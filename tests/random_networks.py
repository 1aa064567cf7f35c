"""Random graphs of fixed-point layers, for hypothesis."""

from __future__ import annotations

from converter_support import Sketch
from hypothesis import strategies as st

from larq_clip.converter import ir
from larq_clip.converter.ir import DType

STORED = st.sampled_from([DType.INT8, DType.INT16])


@st.composite
def bits(draw, channels: int, low: int = -4, high: int = 8) -> tuple[int, ...]:
    """Fraction bits: one, or one per channel."""
    count = draw(st.sampled_from([1, channels]))
    return tuple(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))


@st.composite
def networks(draw) -> ir.Graph:
    """Blocks of binary and int8 convolutions, norms, relus, sums with anything stored before, joins and pools."""
    channels = draw(st.sampled_from([1, 3, 8, 9]))
    sketch = Sketch((draw(st.integers(2, 5)), draw(st.integers(2, 5)), channels), draw(st.integers(0, 999)))
    sketch.quantize("in", draw(STORED), draw(bits(channels)))
    stored, outputs = ["in"], []
    for i in range(draw(st.integers(1, 4))):
        source = draw(st.sampled_from(stored[-2:]))
        shape = sketch.tensors[source].shape
        kind = draw(st.sampled_from(["binary", "binary", "int8", "pool", "mean", "join", "flatten sign"]))
        name = f"{kind.split()[0]}{i}"
        if kind in ("pool", "mean"):
            size = min(2, *shape[:2])
            sketch.pool(name, size, ir.MaxPool2D if kind == "pool" else ir.AveragePool2D, "same", source)
        elif kind == "join":
            fits = [other for other in stored if sketch.tensors[other].shape[:2] == shape[:2]]
            sketch.join(name, source, draw(st.sampled_from(fits)))
        elif kind == "flatten sign":
            sketch.flatten(f"f{i}", source).sign(f"s{i}").binary_conv(f"d{i}", 4, kernel=1).clip(f"q{i}")
            outputs.append(f"q{i}")
            continue
        else:
            filters = draw(st.sampled_from([shape[2], 4, 65]))
            if kind == "binary":
                if draw(st.booleans()):
                    sketch.exact_norm(f"before{i}", source)
                    source = f"before{i}"
                sketch.sign(f"s{i}", source=source).binary_conv(f"c{i}", filters, pad_value=draw(st.integers(-1, 1)))
                sketch.clip(f"q{i}", step_log2=draw(st.integers(0, 2)))
            else:
                eight = sketch.tensors[source].dtype is DType.INT8
                sketch = sketch if eight else sketch.store(f"e{i}", DType.INT8, draw(bits(shape[2])), source)
                sketch.int8_conv(f"c{i}", filters, bias=draw(st.booleans()), source=source if eight else None)
            for j, step in enumerate(draw(st.lists(st.sampled_from(["relu", "norm", "sum"]), max_size=3))):
                same = [other for other in stored if sketch.tensors[other].shape == sketch.tensors[sketch.last].shape]
                if step == "relu":
                    sketch.exact_relu(f"r{i}{j}")
                elif step == "norm":
                    sketch.exact_norm(f"n{i}{j}")
                elif same:
                    sketch.sum(f"y{i}{j}", draw(st.sampled_from(same)))
            last = sketch.last
            if draw(st.booleans()):
                sketch.sign(f"t{i}", source=last).binary_conv(f"u{i}", 3, kernel=1).clip(f"v{i}")
                outputs.append(f"v{i}")
            sketch.store(name, draw(STORED), draw(bits(filters)), source=last)
        stored.append(name)
    outputs += [name for name in {stored[-1], *draw(st.sets(st.sampled_from(stored), max_size=2))} if name != "in"]
    return sketch.graph(*(sorted(set(outputs)) or ["in"]))
