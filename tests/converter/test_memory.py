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


def test_outputs_of_another_size_are_apart_from_the_inputs():
    sketch = (
        Sketch((4, 4, 64)).quantize("i").exact_norm("n").store("a", DType.INT16).store("b", DType.INT16, source="n")
    )
    graph = pipeline.lower(sketch.graph("a", "b"))
    op = next(op for op in graph.ops if len(op.outputs) == 2)
    plan = memory.plan(graph)
    places = sorted((plan.offsets[name], graph.tensors[name].stored_bytes) for name in (*op.inputs, *op.outputs))
    assert all(offset + size <= after for (offset, size), (after, _) in zip(places, places[1:]))
    execute_symbolically(graph, plan)


# Types of ops and the inputs over which they may write, as schema/FORMAT.md has it.
IN_PLACE = dict.fromkeys(["Affine", "Arithmetic", "Elementwise", "Function", "PReLU", "Softmax"], 0)
IN_PLACE |= {"BinaryConv2D": 1, "Int8Conv2D": 1}


def replaced_inputs(graph: ir.Graph, op: ir.Op, plan: memory.Plan) -> set[str]:
    """The inputs that lie where outputs of the same type and shape are written; the rule is spelled out anew."""
    found: set[str] = set()
    for name in op.outputs:
        over = [t for t in op.inputs if plan.offsets[t] == plan.offsets[name]]
        tensors = [graph.tensors[t] for t in (*over, name)]
        if over and not isinstance(op, ir.Reshape):
            assert len({(t.dtype, ir.image_shape(t.shape)) for t in tensors}) == 1, "another element would be there"
            assert set(over) <= set(op.inputs[IN_PLACE[op.type] :]) - set(op.inputs[: IN_PLACE[op.type]])
            found.update(over)
    return found


def execute_symbolically(graph: ir.Graph, plan: memory.Plan) -> int:
    """Every byte remembers which value was written last, and must still hold it when it is read.

    Returns the number of outputs that were written over inputs."""
    arena = np.full(plan.arena_bytes, -1, np.int64)
    value = {name: i for i, name in enumerate(graph.inputs)}
    in_place = 0

    def place(name):
        start = plan.offsets[name]
        assert start % 64 == 0
        return slice(start, start + graph.tensors[name].stored_bytes)

    for name in graph.inputs:
        arena[place(name)] = value[name]
    for op in graph.ops:
        assert all(np.all(arena[place(name)] == value[name]) for name in op.inputs)
        alias = isinstance(op, ir.Reshape) and plan.offsets[op.input] == plan.offsets[op.output]
        for name in op.outputs:
            value[name] = value[op.input] if alias else 1000 + len(value)
            arena[place(name)] = value[name]
        gone = replaced_inputs(graph, op, plan)
        in_place += len(gone)
        kept = {*op.inputs, *op.outputs} - gone
        assert all(np.all(arena[place(name)] == value[name]) for name in kept), "an op overwrites what it holds"
    for name in graph.outputs:
        assert np.all(arena[place(name)] == value[name])
    return in_place


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


def residual(*outputs: str) -> ir.Graph:
    """Two int8 blocks: sign, convolution, norm, and the sum with the block's input."""
    sketch = Sketch((4, 4, 64)).quantize("i", fraction_bits=(4,))
    for block, shortcut in (("a", "i"), ("b", "a")):
        sketch.sign(f"s{block}", source=shortcut).binary_conv(f"c{block}", 64).clip(f"q{block}")
        sketch.exact_norm(f"n{block}").sum(f"y{block}", shortcut).store(block, fraction_bits=(4,))
    return pipeline.lower(sketch.graph(*outputs))


def test_a_sum_is_written_over_its_operand():
    graph = residual("b")
    plan = memory.plan(graph)
    i, a = (plan.offsets[name] for name in ("i", "a"))
    assert i == a and execute_symbolically(graph, plan) == 2
    int8, bits, image = 4 * 4 * 64, 4 * 4 * 8, 4 * 4 * 64 * 4
    assert plan.lower_bound == plan.arena_bytes == image + int8
    assert sum(op.type == "BinaryConv2D" for op in graph.ops) == 2 and bits < int8


def needed_graph(why: str) -> ir.Graph:
    """A graph in which an op that could write over "kept" must not."""
    if why == "it is an output":
        return Sketch((4, 4, 8)).relu("kept").relu("o").graph("kept", "o")
    if why == "it is read later":
        return Sketch((4, 4, 8)).relu("kept").relu("r").conv("o", 8, 1).conv("p", 8, 1, source="kept").graph("o", "p")
    if why == "its other shape is read later":
        return (
            Sketch((4, 4, 8))
            .relu("kept")
            .flatten("f")
            .relu("r", source="kept")
            .conv("o", 8, source="f")
            .graph("o", "r")
        )
    sketch = Sketch((4, 4, 8)).quantize("kept", fraction_bits=(4,)).int8_conv("c", 8).sum("y", "kept")
    graph = pipeline.lower(sketch.store("o", fraction_bits=(4,)).graph("o"))
    assert any(op.inputs == ("kept", "kept") for op in graph.ops)
    return graph


@pytest.mark.parametrize(
    "why", ["it is an output", "it is read later", "its other shape is read later", "its neighbours are read too"]
)
def test_an_input_that_is_needed_is_kept(why):
    graph = needed_graph(why)
    plan = memory.plan(graph)
    execute_symbolically(graph, plan)
    op = next(op for op in graph.consumers("kept") if not isinstance(op, ir.Reshape))
    assert plan.offsets[op.output] != plan.offsets["kept"]
    # And a plan that has it so is refused: far from all others, so that nothing else is wrong with it.
    far = {name: (1 + i) << 20 for i, name in enumerate(graph.tensors)}
    shapes = [name for name in graph.tensors if plan.offsets[name] == plan.offsets["kept"] and name in ("kept", "f")]
    with pytest.raises(ValueError, match="overlap"):
        memory.check(graph, {**far, **dict.fromkeys((*shapes, op.output), 0)}, 1 << 30)
    memory.check(graph, {**far, **dict.fromkeys(shapes, 0)}, 1 << 30)


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
    zeros = dict.fromkeys(graph.tensors, 0)
    with pytest.raises(ValueError, match="'x' and 'c' are live"):
        memory.check(graph, zeros, plan.arena_bytes)
    far = {"x": 0, "c": 1 << 40, "d": 64 * 64}
    memory.check(graph, far, 1 << 41)
