"""The arena plan: nothing that lives at the same time overlaps, checked byte by byte."""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import Sketch, ops_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import networks

from larq_clip.converter import ir, memory, pipeline
from larq_clip.converter.ir import DType


@st.composite
def branching(draw) -> ir.Graph:
    """Float graphs in which each op reads any earlier tensor, with random sizes and outputs."""
    sketch = Sketch((draw(st.integers(1, 5)), 4, draw(st.integers(1, 40))))
    names = ["x"]
    for i in range(draw(st.integers(1, 12))):
        source = draw(st.sampled_from(names[-4:]))
        name = f"t{i}"
        if draw(st.booleans()):
            sketch.relu(name, source=source)
        elif len(sketch.tensors[source].shape) == 3 and draw(st.booleans()):
            sketch.flatten(name, source=source)
        else:
            sketch.conv(name, draw(st.integers(1, 60)), kernel=1, source=source)
        names.append(name)
    outputs = draw(st.sets(st.sampled_from(names[1:]), min_size=1, max_size=3))
    return sketch.graph(*sorted(outputs))


@settings(max_examples=150, deadline=None)
@given(branching())
def test_no_two_live_tensors_share_a_byte(graph):
    plan = memory.plan(graph)
    memory.check(graph, plan.offsets, plan.arena_bytes)
    assert plan.lower_bound <= plan.arena_bytes <= sum(memory.aligned(t.stored_bytes) for t in graph.tensors.values())
    execute_symbolically(graph, plan)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_ops_with_several_inputs_and_outputs_keep_them_apart(network):
    graph = pipeline.lower(network)
    plan = memory.plan(graph)
    memory.check(graph, plan.offsets, plan.arena_bytes)
    execute_symbolically(graph, plan)


def test_all_outputs_of_an_op_are_apart_from_its_inputs():
    sketch = Sketch((4, 4, 64)).quantize("i").exact_norm("n").store("a").store("b", DType.INT16, source="n")
    graph = pipeline.lower(sketch.graph("a", "b"))
    op = next(op for op in graph.ops if len(op.outputs) == 2)
    plan = memory.plan(graph)
    places = sorted((plan.offsets[name], graph.tensors[name].stored_bytes) for name in (*op.inputs, *op.outputs))
    assert all(offset + size <= after for (offset, size), (after, _) in zip(places, places[1:]))
    execute_symbolically(graph, plan)


def execute_symbolically(graph: ir.Graph, plan: memory.Plan) -> None:
    """Every byte remembers which value was written last, and must still hold it when it is read."""
    arena = np.full(plan.arena_bytes, -1, np.int64)
    value = {name: i for i, name in enumerate(graph.inputs)}

    def place(name):
        start = plan.offsets[name]
        assert start % 64 == 0
        return slice(start, start + graph.tensors[name].stored_bytes)

    for name in graph.inputs:
        arena[place(name)] = value[name]
    for op in graph.ops:
        assert all(np.all(arena[place(name)] == value[name]) for name in op.inputs)
        in_place = isinstance(op, ir.Reshape) and plan.offsets[op.input] == plan.offsets[op.output]
        for name in op.outputs:
            value[name] = value[op.input] if in_place else 1000 + len(value)
            arena[place(name)] = value[name]
        touched = (*op.inputs, *op.outputs)
        assert all(np.all(arena[place(name)] == value[name]) for name in touched), "an op overwrites what it holds"
    for name in graph.outputs:
        assert np.all(arena[place(name)] == value[name])


def test_chain_of_equal_tensors_needs_two_places():
    sketch = Sketch((4, 4, 16))
    for i in range(6):
        sketch.conv(f"c{i}", 16)
    plan = memory.plan(sketch.graph())
    assert plan.arena_bytes == plan.lower_bound == 2 * 4 * 4 * 16 * 4


def test_reshape_stays_in_place():
    graph = Sketch((3, 3, 5)).conv("c", 7).flatten("f").conv("d", 2, kernel=1).graph()
    plan = memory.plan(graph)
    reshape = ops_of(graph, ir.Reshape)[0]
    assert plan.offsets[reshape.input] == plan.offsets[reshape.output]


def test_bits_take_words():
    graph = pipeline.lower(Sketch((3, 3, 65)).sign("s").binary_conv("c", 2).graph())
    assert graph.tensors["s"].stored_bytes == 3 * 3 * 2 * 8


def test_check_refuses():
    graph = Sketch((3, 3, 5)).conv("c", 7).conv("d", 7).graph()
    plan = memory.plan(graph)
    with pytest.raises(ValueError, match="'x' is at offset 32; accepted are multiples of 64"):
        memory.check(graph, {**plan.offsets, "x": 32}, plan.arena_bytes)
    with pytest.raises(ValueError, match="beyond the arena"):
        memory.check(graph, plan.offsets, plan.arena_bytes - 64)
    with pytest.raises(ValueError, match="overlap"):
        memory.check(graph, {**plan.offsets, "c": plan.offsets["x"]}, plan.arena_bytes)
    far = {"x": 0, "c": 1 << 40, "d": 64 * 64}
    memory.check(graph, far, 1 << 41)
