"""Random graphs, of fixed-point layers and of plain ones, for hypothesis."""

from __future__ import annotations

from math import inf

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


def moved_network(seed: int) -> ir.Graph:
    """Regions, blocks and depthwise sums of integers and bits, which `plain_networks` has of float32."""
    sketch = Sketch((6, 5, 8), seed).quantize("i", fraction_bits=(2,))
    sketch.slice("cut8", (7, 4, 4), begin_h=-1, begin_w=2, begin_c=1, value=3).depth_to_space("space8", 2, 1)
    sketch.quantize("j", DType.INT16, (4,), "x").slice("cut16", (5, 7, 10), begin_w=-1, begin_c=-1, value=-300)
    sketch.sign("s", source="x").slice("frame", (8, 7, 8), begin_h=-1, begin_w=-1, value=-1).binary_conv("b", 5).clip(
        "q"
    )
    sketch.int8_conv("depthwise", 16, bias=True, source="i", groups=8).exact_relu("r").store("d")
    return sketch.graph("space8", "cut16", "q", "d")


SHAPES = st.sampled_from([(4, 5, 6), (5, 4, 12), (1, 1, 8), (7, 6), (16,)])
PLAIN = ("conv", "arithmetic", "prelu", "clip", "slice", "space", "planes", "join", "gate", "flatten")


@st.composite
def plain_networks(draw) -> ir.Graph:
    """Float convolutions with arithmetic, activations, slices and blocks between them, and bit planes of levels."""
    sketch, made = Sketch(draw(SHAPES), draw(st.integers(0, 999))).prelu("first"), ["x", "first"]
    for i, kind in enumerate(draw(st.lists(st.sampled_from(PLAIN), min_size=2, max_size=6))):
        source, name = draw(st.sampled_from(made[-3:])), f"{kind}{i}"
        height, width, channels = ir.image_shape(shape := sketch.tensors[source].shape)
        rank = len(shape)
        if kind == "conv":
            groups = draw(st.sampled_from([g for g in (1, 2, 3, channels) if channels % g == 0]))
            sketch.conv(name, groups * draw(st.integers(1, 3)), groups=groups, source=source)
            sketch.tensors[name] = sketch.tensors[name].reshaped(name, sketch.tensors[name].shape[-rank:])
        elif kind == "arithmetic":
            fits = [t for t in made if _broadcasts(sketch.tensors[t].shape, shape)]
            operation = draw(st.sampled_from(["add", "subtract", "multiply", "maximum", "minimum"]))
            sketch.arithmetic(f"{name}:wide", operation, draw(st.sampled_from(fits)), source=source)
            sketch.add(ir.Affine, name, activation=ir.Activation(-4, 4))  # products of products stay small
        elif kind == "prelu":
            sketch.prelu(name, draw(st.tuples(*(st.booleans() for _ in range(3)))), source)
        elif kind == "clip":
            low, high = draw(st.sampled_from([(-inf, 0.5), (0, inf), (0, 6), (-1, 1), (-0.5, -0.5)]))
            sketch.add(ir.Affine, name, source=source, activation=ir.Activation(low, high))
        elif kind == "slice":
            begins = dict(zip(("begin_h", "begin_w", "begin_c")[-rank:], draw(st.tuples(*[st.integers(-2, 2)] * rank))))
            size = tuple(draw(st.integers(1, axis + 2)) for axis in shape)
            sketch.slice(name, size, source, value=draw(st.sampled_from([0.0, -1.5])), **begins)
        elif kind == "space" and rank == 3 and channels % 2 == 0:
            sketch.depth_to_space(name, *draw(st.sampled_from([(1, 2), (2, 1)])), source=source)
        elif kind == "planes":
            count, invert = draw(st.integers(2, 3)), sketch.rng.integers(0, 2, channels).astype("u1")
            sketch.planes(name, count, invert=invert if draw(st.booleans()) else None, source=source)
            sketch.join(f"{name}:bits", *(f"{name}{j}" for j in range(count))).add(ir.Unpack, name)
        elif kind == "join":
            fits = [
                t for t in made if sketch.tensors[t].shape[:-1] == shape[:-1] and len(sketch.tensors[t].shape) == rank
            ]
            sketch.join(name, source, draw(st.sampled_from(fits)))
        elif kind == "flatten" and rank > 1:
            sketch.flatten(name, source)
        elif kind == "gate":
            function = draw(st.sampled_from(ir.FunctionKind))
            sketch.add(ir.Function, name, source=source, kind=function)  # rounds as a library may not: nothing reads it
            continue
        if name in sketch.tensors:
            made.append(name)
    read = {name for op in sketch.ops for name in op.inputs}
    return sketch.graph(*(name for name, t in sketch.tensors.items() if name not in read and t.dtype is DType.FLOAT32))


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(ir.image_shape(a), ir.image_shape(b)))
