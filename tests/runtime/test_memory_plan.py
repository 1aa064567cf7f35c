"""The plan of a file: the converter and the runtime accept the same ones, and what is in place changes no result."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from converter_support import Sketch, dyadic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import networks

from larq_clip import Interpreter
from larq_clip.converter import ir, memory, pipeline, reader, writer
from larq_clip.errors import ModelFileError

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def write(graph: ir.Graph, offsets: dict[str, int]) -> bytes:
    """A file with this plan, whatever it is."""
    end = max(offsets[name] + tensor.stored_bytes for name, tensor in graph.tensors.items())
    with mock.patch.object(memory, "plan", lambda graph: memory.Plan(offsets, end, 0)):
        return writer.write(graph)


def accepted(load, data: bytes) -> bool:
    try:
        load(data)
    except ModelFileError as error:
        assert "overlap in the arena" in str(error) or "share memory" in str(error), error
        return False
    return True


@st.composite
def float_networks(draw) -> ir.Graph:
    """Sums, activations, reshapes, pools of one pixel and softmaxes in a row, of which some are outputs."""
    sketch = Sketch((2, 3, draw(st.sampled_from([1, 4, 16]))))
    sketch.pool("mean", 2, ir.AveragePool2D)
    names = ["x"]
    for i in range(draw(st.integers(2, 6))):
        source = draw(st.sampled_from(names[-2:]))
        kind = draw(st.sampled_from(["relu", "flatten", "pool", "softmax", "sum", "prelu", "tanh"]))
        if kind == "pool" and len(sketch.tensors[source].shape) == 3:
            sketch.pool(f"t{i}", 1, source=source)
        elif kind == "flatten":
            sketch.flatten(f"t{i}", source)
        elif kind == "softmax":
            sketch.add(ir.Softmax, f"t{i}", source=source)
        elif kind == "tanh":
            sketch.add(ir.Function, f"t{i}", source=source, kind=ir.FunctionKind.TANH)
        elif kind == "prelu":
            sketch.prelu(f"t{i}", source=source)
        elif kind == "sum":
            shape = sketch.tensors[source].shape
            others = [name for name in names if sketch.tensors[name].shape == shape]
            others += ["mean"] if shape == sketch.tensors["x"].shape else []  # repeated over all pixels
            sketch.arithmetic(f"t{i}", "ADD", draw(st.sampled_from(others)), source=source)
        else:
            sketch.relu(f"t{i}", source)
        names.append(f"t{i}")
    return sketch.graph(*sorted(draw(st.sets(st.sampled_from(names[1:]), min_size=1, max_size=2))))


@st.composite
def plans(draw) -> tuple[ir.Graph, dict[str, int]]:
    """A graph, and a plan of which some tensors were moved to where others lie, or 64 bytes off."""
    graph = pipeline.lower(draw(st.one_of(networks(), float_networks())))
    names = list(graph.tensors)
    apart = {name: 1 << 16 for name in names}
    offsets = dict(
        draw(st.sampled_from([memory.plan(graph).offsets, dict(zip(names, np.cumsum(list(apart.values()))))]))
    )
    for _ in range(draw(st.integers(0, 3))):
        op = draw(st.sampled_from(graph.ops))
        near = [*op.inputs, *op.outputs]
        target = draw(st.sampled_from(near if draw(st.booleans()) else names))
        offsets[draw(st.sampled_from(near))] = offsets[target] + draw(st.sampled_from([0, 0, 0, 64]))
    return graph, {name: int(offset) for name, offset in offsets.items()}


@QUICK
@given(plans())
def test_converter_and_runtime_agree_on_what_may_overlap(plan):
    data = write(*plan)
    assert accepted(reader.read, data) == accepted(Interpreter, data)


@settings(QUICK, max_examples=60)
@given(st.one_of(networks(), float_networks()))
def test_they_agree_on_every_output_over_every_input(network):
    graph = pipeline.lower(network)
    apart = {name: i << 16 for i, name in enumerate(graph.tensors)}
    pairs = [(op, read, written) for op in graph.ops for read in op.inputs for written in op.outputs]
    for op, read, written in pairs:
        if graph.tensors[read].stored_bytes == graph.tensors[written].stored_bytes:
            data = write(graph, {**apart, written: apart[read]})
            assert accepted(reader.read, data) == accepted(Interpreter, data), (op, read, written)


@QUICK
@given(st.one_of(networks(), float_networks()), st.sampled_from([1, 3]))
def test_in_place_changes_nothing(network, threads):
    graph = pipeline.lower(network)
    data = writer.write(graph)
    image = dyadic(np.random.default_rng(0), (1, *graph.tensors["x"].shape))
    planned, apart = Interpreter(data, num_threads=threads), Interpreter(data, keep_tensors=True)
    for one, other in zip(*(r if isinstance(r, list) else [r] for r in (planned.predict(image), apart.predict(image)))):
        np.testing.assert_array_equal(one, other)


ALLOWED = ("Affine", "Arithmetic", "Elementwise", "Function", "PReLU", "Softmax", "Reshape")
SAME_SIZE = (*ALLOWED, "AveragePool2D", "BinaryConv2D", "Conv2D", "DepthToSpace", "MaxPool2D", "Slice")


@pytest.mark.parametrize("kind", SAME_SIZE)
def test_ops_that_may_write_over_their_input(kind):
    """Each op with an output as large as its input, and nothing else wrong with the plan."""
    sketch = Sketch((3, 3, 8)).relu("a")
    if kind == "Affine":
        sketch.relu("b")
    elif kind == "Softmax":
        sketch.add(ir.Softmax, "b")
    elif kind == "Function":
        sketch.add(ir.Function, "b", kind=ir.FunctionKind.SIGMOID)
    elif kind == "Arithmetic":
        sketch.arithmetic("b", "MULTIPLY", "x")
    elif kind == "PReLU":
        sketch.prelu("b")
    elif kind == "Slice":
        sketch.slice("b", (3, 3, 8), begin_h=1)
    elif kind == "DepthToSpace":
        sketch.depth_to_space("b", 1, 1)
    elif kind in ("MaxPool2D", "AveragePool2D"):
        sketch.pool("b", 1, getattr(ir, kind))
    elif kind == "Conv2D":
        sketch.conv("b", 8, kernel=1)
    elif kind == "Reshape":
        sketch.flatten("b")
    elif kind == "Elementwise":
        sketch.quantize("a8", fraction_bits=(2,)).exact_relu("r").store("b", fraction_bits=(2,))
    else:
        sketch.sign("s").binary_conv("c", 8, kernel=1).clip("q").sign("t").binary_conv("o", 8).clip("p")
    graph = pipeline.lower(sketch.graph())
    op = next(op for op in graph.ops[1:] if op.type == kind)
    offsets = {name: i << 16 for i, name in enumerate(graph.tensors)}
    data = write(graph, {**offsets, op.output: offsets[op.input]})
    assert accepted(reader.read, data) == accepted(Interpreter, data) == (kind in ALLOWED)
