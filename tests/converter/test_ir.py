"""Graphs, the rules that they keep, and the evaluators that no other test compares with Keras."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from converter_support import Sketch, dyadic, run
from hypothesis import given, settings
from hypothesis import strategies as st

from larq_clip.arithmetic import WindowAxis
from larq_clip.converter import ir, spec
from larq_clip.converter.ir import DType, Epilogue, Tensor, Window

# ---- Graphs ---------------------------------------------------------------------------------------------------------


def tensors(*names):
    return [Tensor(name, DType.FLOAT32, (3,)) for name in names]


def relu(source, result):
    return ir.Affine(result, (source,), (result,), activation=ir.Activation.RELU)


def test_ops_are_sorted_and_unneeded_ones_dropped():
    ops = [relu("b", "c"), relu("x", "unused"), relu("a", "b"), relu("x", "a")]
    graph = ir.Graph.build("g", tensors(*"xabc", "unused"), ops, ["x"], ["c"])
    assert [op.name for op in graph.ops] == ["a", "b", "c"]
    assert list(graph.tensors) == ["x", "a", "b", "c"]
    assert graph.producer("x") is None and graph.producer("b").name == "b"
    assert graph.only_consumer("a").name == "b" and graph.only_consumer("c") is None


def test_outputs_have_readers_of_their_own():
    graph = ir.Graph.build("g", tensors(*"xab"), [relu("x", "a"), relu("a", "b")], ["x"], ["a", "b"])
    assert graph.only_consumer("a") is None and [op.name for op in graph.consumers("a")] == ["b"]


@pytest.mark.parametrize(
    "names, ops, message",
    [
        ("xab", [relu("a", "b"), relu("b", "a")], r"ops \['b', 'a'\] wait for tensors"),
        ("xab", [relu("x", "b"), relu("a", "b")], "writes tensor 'b', which has a producer already"),
        ("xb", [relu("x", "x")], "writes tensor 'x', which has a producer already"),
        ("xb", [relu("x", "a"), relu("a", "b")], r"tensors \['a'\] are used but not defined"),
        ("xxb", [relu("x", "b")], "tensor 'x' is defined twice"),
    ],
)
def test_broken_graphs(names, ops, message):
    with pytest.raises(ir.GraphError, match=message):
        ir.Graph.build("g", tensors(*names), ops, ["x"], ["b"])


def test_replacing_an_op_that_is_not_there():
    graph = ir.Graph.build("g", tensors(*"xb"), [relu("x", "b")], ["x"], ["b"])
    with pytest.raises(ir.GraphError, match="not in the graph"):
        graph.replace(ir.Replacement((relu("x", "b"),), ()))


def test_graphs_do_not_change():
    graph = Sketch((3, 3, 2)).conv("c", 4).graph()
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.ops[0].name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.name = "other"


def test_evaluate_checks_its_inputs():
    graph = Sketch((3, 3, 2)).conv("c", 4).graph()
    with pytest.raises(ValueError, match=r"inputs \['y'\] were given; the graph has \['x'\]"):
        ir.evaluate(graph, {"y": np.zeros((1, 3, 3, 2))})
    with pytest.raises(ValueError, match=r"input 'x' has shape \(3, 3, 2\); accepted is \(batch"):
        ir.evaluate(graph, {"x": np.zeros((3, 3, 2))})


def test_join_names():
    def op(name):
        return ir.Unpack(name, (), ())

    assert ir.join_names(op("a"), op("b+a"), op("c:input")) == "a+b"
    assert ir.join_names(op("c:input")) == "c:input"


# ---- Evaluators -----------------------------------------------------------------------------------------------------


def test_values_of_integers_and_bits():
    q = np.array([[-3, 4]], np.int8)
    assert ir.values(q, Tensor("", DType.INT8, (2,), (-1,))).tolist() == [[-6, 8]]
    assert ir.values(q, Tensor("", DType.INT8, (2,), (1, -2))).tolist() == [[-1.5, 16]]
    assert ir.values(np.array([[0, 1]], np.uint8), Tensor("", DType.BIT, (2,))).tolist() == [[1, -1]]


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides, dilation", [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((1, 1), (2, 1))])
def test_float_convolution_and_pools_as_keras(padding, strides, dilation):
    from larq_clip._keras import keras
    from larq_clip.converter import keras_importer

    rng = np.random.default_rng(0)
    conv = keras.layers.Conv2D(6, (3, 2), strides, padding, dilation_rate=dilation)
    mean = keras.layers.AveragePooling2D((2, 3), strides, padding)
    most = keras.layers.MaxPooling2D((3, 2), strides, padding)
    image = keras.Input((9, 8, 5))
    model = keras.Model(image, [conv(image), mean(image), most(image)])
    conv.set_weights([dyadic(rng, (3, 2, 5, 6)), dyadic(rng, (6,))])
    x = dyadic(rng, (3, 9, 8, 5))
    graph = keras_importer.import_model(model)
    arrays = ir.evaluate(graph, {graph.inputs[0]: x})
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(arrays[conv.name], expected[0])
    np.testing.assert_allclose(arrays[mean.name], expected[1], rtol=2**-23)  # one division, perhaps by a reciprocal
    np.testing.assert_array_equal(arrays[most.name], expected[2])


def test_softmax():
    x = np.array([[1000, 1000, -1000], [0, np.log(3), -np.inf]], np.float32)
    np.testing.assert_allclose(
        ir.Softmax("", (), ()).compute(x, *tensors("x", "y")), [[0.5, 0.5, 0], [0.25, 0.75, 0]], rtol=1e-6
    )


# ---- The spec -------------------------------------------------------------------------------------------------------


def changed(graph: ir.Graph, name: str, dtype=None, shape=None, fraction_bits=None, **fields) -> ir.Graph:
    """A graph in which the op that writes `name`, or that tensor, is different; nothing is checked."""
    ops = tuple(dataclasses.replace(op, **fields) if op.output == name else op for op in graph.ops)
    new = {k: v for k, v in (("dtype", dtype), ("shape", shape), ("fraction_bits", fraction_bits)) if v is not None}
    table = {k: dataclasses.replace(t, **new) if k == name else t for k, t in graph.tensors.items()}
    return ir.Graph(graph.name, table, ops, graph.inputs, graph.outputs)


def binary_graph() -> ir.Graph:
    return Sketch((4, 4, 6)).sign("s").binary_conv("c", 5).clip("q").norm("n").graph()


FLOAT5, BITS5 = np.ones(5, np.float32), np.ones(5, np.uint8)

BROKEN = {
    "window fits": ("c", {"window": Window(3, 3, 1, 1, 1, 1, 3, 1)}, "its window fits"),
    "window starts inside": ("c", {"shape": (6, 4, 5)}, "its window fits"),
    "window positive": ("c", {"window": Window(3, 3, 0, 1, 1, 1, 1, 1)}, "its window fits"),
    "bits in": ("s", {"dtype": DType.FLOAT32}, "it reads bits|outputs are bits"),
    "pad value": ("c", {"pad_value": 2}, "pad_value is -1, 0 or 1"),
    "groups": ("c", {"groups": 4}, "groups divide"),
    "weights": ("c", {"weights": np.zeros((5, 3, 3, 5), np.uint8)}, "its weights are bits"),
    "weights 2": ("c", {"weights": np.full((5, 3, 3, 6), 2, np.uint8)}, "its weights are bits"),
    "clip limit": ("c", {"clip_limit": 100}, "clip_limit is"),
    "step": ("q", {"step_log2": 25}, "step_log2 is from"),
    "limit": ("q", {"limit": 126}, "limit is"),
    "clip type": ("q", {"dtype": DType.INT16}, "it takes int32 to int8"),
    "clip scale": ("q", {"fraction_bits": (3,)}, "it takes int32 to int8"),
    "epilogue type": ("c", {"epilogue": Epilogue.CLIP, "clip_limit": 127}, "its output type suits"),
    "epilogue": ("c", {"thresholds": np.zeros(5, np.int8)}, "the epilogue Threshold has"),
    "invert": ("c", {"invert": BITS5}, "invert is for"),
    "affine": ("c", {"multiplier": FLOAT5, "offset": FLOAT5}, "the epilogue Affine has"),
    "norm": ("n", {"mean": FLOAT5 * np.nan}, "four constants are finite"),
    "norm size": ("n", {"beta": np.ones(4, np.float32)}, "four constants are finite"),
    "norm type": ("n", {"gamma": np.ones(5)}, "four constants are finite"),
    "shape kept": ("n", {"shape": (4, 2, 5)}, "it keeps the shape"),
    "rank": ("n", {"shape": (4, 4, 1, 5)}, "accepted are .channels,., .length, channels. and"),
    "size": ("n", {"shape": (4, 0, 5)}, "accepted are .channels,., .length, channels. and"),
    "fraction": ("n", {"fraction_bits": (1,)}, "fraction bits; integers have none"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_rules_of_binary_graphs(case):
    name, change, message = BROKEN[case]
    graph = binary_graph()
    spec.check(graph)
    with pytest.raises(spec.SpecError, match=message):
        spec.check(changed(graph, name, **change))


BROKEN_FLOAT = {
    "weights": ("c", {"weights": np.ones((3, 3, 6, 4), np.float32)}, "its weights are finite"),
    "bias": ("c", {"bias": np.full(5, np.inf, np.float32)}, "its bias is finite"),
    "pool channels": ("p", {"shape": (2, 2, 6)}, "it keeps the number of channels"),
    "pool type": ("p", {"dtype": DType.INT8}, "it keeps the type"),
    "elements": ("f", {"shape": (21,)}, "it keeps the number of elements"),
    "multiplier": ("a", {"multiplier": np.ones(3, np.float32)}, "its multiplier and offset"),
    "thresholds": ("s", {"thresholds": np.full(20, np.nan, np.float32)}, "not NaN"),
    "threshold type": ("s", {"thresholds": np.zeros(20, np.int8)}, "its thresholds are of its input's type"),
    "invert": ("s", {"invert": np.full(20, 3, np.uint8)}, "invert is one bit a channel"),
}


@pytest.mark.parametrize("case", BROKEN_FLOAT)
def test_rules_of_float_graphs(case):
    name, change, message = BROKEN_FLOAT[case]
    graph = Sketch((4, 4, 6)).conv("c", 5).pool("p").flatten("f").relu("a").sign("s").graph()
    spec.check(graph)
    with pytest.raises(spec.SpecError, match=message):
        spec.check(changed(graph, name, **change))


def test_rules_of_files():
    for graph, message in (
        (Sketch((4, 4, 6)).sign("s").binary_conv("c", 5).relu("a").graph(), "its epilogue is one of the file's"),
        (Sketch((4, 4, 6)).norm("n").graph(), "not an op of the file"),
        (Sketch((4, 4, 6)).sign("s").graph(), "inputs and outputs must be float32"),
        (
            Sketch((2, 2, 6)).sign("s").flatten("f").add(ir.Unpack, "u").graph(),
            "bits keep their words",
        ),
    ):
        spec.check(graph)
        with pytest.raises(spec.SpecError, match=message):
            spec.check(graph, lowered=True)


def test_order_and_producers():
    graph = binary_graph()
    swapped = ir.Graph(graph.name, graph.tensors, graph.ops[::-1], graph.inputs, graph.outputs)
    with pytest.raises(spec.SpecError, match="before it is written"):
        spec.check(swapped)
    twice = ir.Graph(graph.name, graph.tensors, (*graph.ops, graph.ops[-1]), graph.inputs, graph.outputs)
    with pytest.raises(spec.SpecError, match="has a producer already"):
        spec.check(twice)
    table = {**graph.tensors, "ghost": Tensor("ghost", DType.FLOAT32, (3,))}
    with pytest.raises(spec.SpecError, match="written by no op"):
        spec.check(ir.Graph(graph.name, table, graph.ops, graph.inputs, graph.outputs))


@settings(max_examples=300, deadline=None)
@given(*(st.integers(1, 5) for _ in range(4)), st.integers(0, 6), st.integers(1, 6))
def test_windows_of_pools_meet_the_image(size, kernel, stride, dilation, pad, out):
    """The closed form agrees with listing the taps of every position."""
    axis = WindowAxis(size, kernel, stride, dilation, pad, out)
    op = ir.MaxPool2D("", (), (), window=Window(kernel, 1, stride, 1, dilation, 1, pad, 0))
    source, result = Tensor("", DType.INT8, (size, 1, 2)), Tensor("", DType.INT8, (out, 1, 2))
    assert spec._window_meets_image(op, source, result) == all(axis.taps(p) for p in range(out))


def test_sketches_evaluate_every_tensor():
    graph = binary_graph()
    assert set(run(graph)) == set(graph.tensors)
