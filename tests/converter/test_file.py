"""Writer and reader: what goes in comes out, constants are aligned, and damaged bytes are refused, never misread."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from converter_support import Sketch, dyadic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from larq_clip.converter import codec, ir, memory, packing, pipeline, reader, spec, writer
from larq_clip.converter.ir import DType
from larq_clip.errors import ConversionError, ModelFileError

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def every_op(seed: int = 0) -> ir.Graph:
    """A lowered graph with every op, epilogue and kind of constant of the file."""
    sketch = Sketch((9, 8, 3), seed).conv("c", 5, bias=True).norm("n", scale=1.0).pool("p").sign("s")
    sketch.binary_conv("b", 70, pad_value=1).clip("q").norm("n2").pool("p2").sign("s2")
    sketch.binary_conv("b2", 66).clip("q2", step_log2=1).pool("p3").norm("n3").relu("r3").flatten("f")
    sketch.conv("d", 4, kernel=1, bias=True).add(ir.Softmax, "out")
    sketch.binary_conv("b3", 4, source="s2", groups=2).norm("n4").pool("mean", op_type=ir.AveragePool2D)
    sketch.add(ir.Unpack, "signs", source="s2")
    sketch.quantize("i", fraction_bits=(3, 5, 4), source="x").int8_conv("ic", 6, bias=True).exact_relu("ir")
    sketch.store("is", DType.INT16, (4,)).join("cat", "is", "i").pool("ip").store("e", DType.INT16, (1,))
    sketch.pool("im", op_type=ir.AveragePool2D, source="ip").exact_norm("in").sign("it")
    sketch.binary_conv("ib", 9).clip("iq").exact_norm("in2").sum("sum", "im")
    sketch.store("s3", fraction_bits=(2,)).sign("it2", source="sum").binary_conv("ib2", 3, kernel=1).clip("iq2")
    sketch.conv("g", 6, groups=3, activation=ir.Activation(-1, 6), source="x").prelu("pr").add(
        ir.Function, "fn", kind=ir.FunctionKind.TANH
    )
    sketch.arithmetic("sum2", "subtract", "g").slice("cut", (4, 10, 8), begin_h=2, begin_w=-1, begin_c=-1, value=0.5)
    sketch.depth_to_space("d2s", 1, 2).planes("pl", 2).join("bits", "pl0", "pl1").binary_conv("b4", 3).norm("n5")
    return pipeline.lower(sketch.graph("out", "mean", "signs", "e", "s3", "iq2", "n5"))


def same(a: ir.Graph, b: ir.Graph) -> None:
    """Equal in every field of every op and tensor."""
    assert (a.name, a.inputs, a.outputs) == (b.name, b.inputs, b.outputs)
    assert list(a.tensors.values()) == list(b.tensors.values())
    assert [type(op) for op in a.ops] == [type(op) for op in b.ops]
    for old, new in zip(a.ops, b.ops):
        assert equal(old, new), old.name


def equal(x, y) -> bool:
    """Equal, arrays in type and shape too, dataclasses and tuples of them in every field."""
    if dataclasses.is_dataclass(x):
        return type(x) is type(y) and all(equal(getattr(x, f.name), getattr(y, f.name)) for f in dataclasses.fields(x))
    if isinstance(x, np.ndarray):
        return isinstance(y, np.ndarray) and (x.dtype, x.shape) == (y.dtype, y.shape) and np.array_equal(x, y)
    if isinstance(x, tuple):
        return isinstance(y, tuple) and len(x) == len(y) and all(map(equal, x, y))
    return x == y


def test_every_op_round_trips():
    graph = every_op()
    assert {type(op) for op in graph.ops} == set(codec.OP_FIELDS)
    epilogues = {op.epilogue for op in graph.ops if isinstance(op, ir.BinaryConv2D)}
    assert epilogues == set(ir.Epilogue) - {ir.Epilogue.ACCUMULATOR}
    data = writer.write(graph)
    same(graph, reader.read(data))
    assert writer.write(reader.read(data)) == data


@st.composite
def graphs(draw) -> ir.Graph:
    """Chains of random layers with random sizes, lowered."""
    sketch = Sketch(
        (draw(st.integers(3, 6)), draw(st.integers(3, 6)), draw(st.integers(1, 70))), draw(st.integers(0, 99))
    )
    for i in range(draw(st.integers(1, 3))):
        sketch.sign(f"s{i}")
        sketch.binary_conv(f"b{i}", draw(st.sampled_from([1, 3, 64, 65])), pad_value=draw(st.sampled_from([-1, 0, 1])))
        if draw(st.booleans()):
            sketch.clip(f"q{i}", bits=draw(st.integers(2, 12)), step_log2=draw(st.integers(-2, 5)))
        for j, op in enumerate(draw(st.lists(st.sampled_from(["norm", "relu", "pool"]), max_size=2))):
            if op == "pool" and min(sketch.tensors[sketch.last].shape[:2]) < 2:
                continue
            getattr(sketch, op)(f"{op}{i}{j}")
    if draw(st.booleans()):
        sketch.flatten("f").add(ir.Affine, "g").conv("d", 3, kernel=1, bias=draw(st.booleans()))
    return pipeline.lower(sketch.graph())


@QUICK
@given(graphs())
def test_random_graphs_round_trip(graph):
    data = writer.write(graph)
    again = reader.read(data)
    same(graph, again)
    x = {"x": dyadic(np.random.default_rng(0), (2, *graph.tensors["x"].shape))}
    old, new = ir.evaluate(graph, x), ir.evaluate(again, x)
    for name in old:
        np.testing.assert_array_equal(old[name], new[name])


def test_constants_start_on_16_bytes():
    from larq_clip.converter.schema import larq_clip_generated as schema

    data = writer.write(every_op())
    model = schema.Model.GetRootAs(data, 0)
    assert model.ConstantsLength() > 10
    whole = np.frombuffer(data, np.uint8)
    for i in range(model.ConstantsLength()):
        view = model.Constants(i).DataAsNumpy()
        place = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        assert place % 16 == 0 and 0 < place < len(data)


# ---- Damage ---------------------------------------------------------------------------------------------------------

DATA = writer.write(every_op())


def read_or_refuse(data: bytes) -> None:
    """Either a graph that keeps all rules, or ModelFileError with one line."""
    try:
        graph = reader.read(data)
    except ModelFileError as error:
        assert str(error) and "\n" not in str(error)
    else:
        spec.check(graph, lowered=True)


def test_every_truncation_is_refused():
    step = max(1, len(DATA) // 400)
    for size in [*range(0, len(DATA) - 1, step), len(DATA) - 1]:
        with pytest.raises(ModelFileError):
            reader.read(DATA[:size])


@settings(QUICK, max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_are_read_or_refused(changes):
    data = bytearray(DATA)
    for place, value in changes:
        data[place] = value
    read_or_refuse(bytes(data))


@settings(QUICK, max_examples=400)
@given(st.integers(0, len(DATA) // 4 - 1), st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**16, 7]))
def test_changed_words_are_read_or_refused(place, value):
    data = bytearray(DATA)
    data[4 * place : 4 * place + 4] = value.to_bytes(4, "little")
    read_or_refuse(bytes(data))


@QUICK
@given(st.binary(max_size=300))
def test_garbage_is_refused(garbage):
    for data in (garbage, garbage[:4] + b"LCB1" + garbage[4:]):
        with pytest.raises(ModelFileError):
            reader.read(data)


def test_messages_say_what_is_wrong():
    with pytest.raises(ModelFileError, match="not a larq_clip model file: 9 bytes"):
        reader.read(b"not a one")
    with pytest.raises(ModelFileError, match="not a larq_clip model file: 0 bytes"):
        reader.read(b"")
    with pytest.raises(ModelFileError, match="cut off: it has 41 bytes"):
        reader.read(DATA[:41])
    with pytest.raises(ModelFileError, match="damaged or cut off"):
        reader.read(DATA[:40])


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(codec, "FORMAT_VERSION", 2)
    newer = writer.write(every_op())
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match="format version 2; accepted is 1"):
        reader.read(newer)


def test_overlapping_plan_is_refused(monkeypatch):
    graph = every_op()
    zeros = memory.Plan({name: 0 for name in graph.tensors}, memory.plan(graph).arena_bytes, 0)
    monkeypatch.setattr(memory, "plan", lambda graph: zeros)
    data = writer.write(graph)
    with pytest.raises(ModelFileError, match="live at the same time and overlap"):
        reader.read(data)


def test_too_many_ops_are_refused(monkeypatch):
    monkeypatch.setattr(codec, "MAX_ITEMS", 3)
    with pytest.raises(ConversionError, match="holds at most 3"):
        writer.write(every_op())
    with pytest.raises(ModelFileError, match="accepted are up to 3"):
        reader.read(DATA)


def test_imported_graph_is_not_written():
    with pytest.raises(spec.SpecError, match="BatchNorm.*not an op of the file"):
        writer.write(Sketch((3, 3, 2)).norm("n").graph())


# ---- Packing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 63, 64, 65, 128])
def test_bits_are_probed_one_by_one(channels):
    """Rows follow each other without a gap, and only the last word is filled up."""
    for c in range(channels):
        bits = np.zeros((3, channels), np.uint8)
        bits[1, c] = 1
        data = packing.pack_constant(bits, DType.BIT)
        assert len(data) == packing.constant_bytes(DType.BIT, bits.shape) == -(-3 * channels // 64) * 8
        assert int.from_bytes(data, "little") == 1 << (channels + c)
        np.testing.assert_array_equal(packing.unpack_constant(data, DType.BIT, (3, channels)), bits)


def test_equal_constants_are_written_once():
    sketch = Sketch((4, 4, 64)).sign("s")
    weights = sketch.rng.integers(0, 2, (64, 3, 3, 64)).astype(np.uint8)
    for i in range(3):
        sketch.binary_conv(f"b{i}", 64, weights=weights if i < 2 else 1 - weights).clip(f"q{i}").sign(f"s{i}")
    graph = pipeline.lower(sketch.graph())
    data = writer.write(graph)
    same(graph, reader.read(data))
    file = reader.read_model(data)
    assert file.constant_bytes < 2 * weights.size // 8 + 3 * 64 * 2 < len(data) < 3 * weights.size // 8


def test_packing_refuses():
    with pytest.raises(ValueError, match="bits set above its last one"):
        packing.unpack_constant(b"\x08" + bytes(7), DType.BIT, (3,))
    with pytest.raises(ValueError, match="has 7 bytes, not 8"):
        packing.unpack_constant(bytes(7), DType.FLOAT32, (2,))
    with pytest.raises(ValueError, match="float64"):
        packing.constant_dtype(np.zeros(3), bits=False)
