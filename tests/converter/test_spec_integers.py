"""The rules of the ops of fixed-point models: each case breaks one, and is refused by its words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from converter_support import Sketch

from larq_clip.converter import ir, pipeline, spec
from larq_clip.converter.ir import DType, Step, StepKind, Store, Tensor


def graph() -> ir.Graph:
    sketch = Sketch((4, 4, 5)).quantize("i", fraction_bits=(3, 1, 2, 3, 4)).int8_conv("c", 5, bias=True).sum("y", "i")
    sketch.store("o", fraction_bits=(2,)).sign("t", source="y").binary_conv("b", 5).clip("q").exact_norm("n")
    sketch.sum("z", "o").store("p", DType.INT16, (7,)).join("cat", "p", "o").exact_relu("e")
    sketch.pool("mean", op_type=ir.AveragePool2D)
    return pipeline.lower(sketch.graph())


GRAPH = graph()


def changed(name: str, steps=None, stores=None, **fields) -> ir.Graph:
    """The graph in which the op that writes `name` is different; nothing is checked."""
    ops = []
    for op in GRAPH.ops:
        if name in op.outputs:
            if steps is not None or stores is not None:
                own = op.fixed_point
                fields["fixed_point"] = ir.FixedPoint(
                    own.steps if steps is None else steps, own.stores if stores is None else stores
                )
            op = dataclasses.replace(op, **fields)
        ops.append(op)
    return ir.Graph(GRAPH.name, GRAPH.tensors, tuple(ops), GRAPH.inputs, GRAPH.outputs)


def typed(name: str, **fields) -> ir.Graph:
    """The graph in which a tensor is different; nothing is checked."""
    table = {k: dataclasses.replace(t, **fields) if k == name else t for k, t in GRAPH.tensors.items()}
    return ir.Graph(GRAPH.name, table, GRAPH.ops, GRAPH.inputs, GRAPH.outputs)


ONES = np.ones(5, np.int32)
BAD_SHIFT = np.full(5, 63, np.int8)
ADD = Step(StepKind.ADD, operand=1)
AFFINE = Step(StepKind.AFFINE, ONES)

BROKEN = {
    "affine without multiplier": (changed("p", steps=(Step(StepKind.AFFINE), ADD)), "constants of their kind"),
    "relu with multiplier": (changed("p", steps=(Step(StepKind.RELU, ONES), ADD)), "constants of their kind"),
    "multiplier type": (changed("p", steps=(Step(StepKind.AFFINE, np.ones(5)), ADD)), "constants of their kind"),
    "offset type": (changed("p", steps=(Step(StepKind.AFFINE, ONES, ONES), ADD)), "constants of their kind"),
    "add shift": (changed("p", steps=(AFFINE, Step(StepKind.ADD, operand=1, shift=BAD_SHIFT))), "constants of their"),
    "negative add shift": (
        changed("p", steps=(Step(StepKind.ADD, operand=1, operand_shift=np.full(5, -1, np.int8)),)),
        "constants of their kind",
    ),
    "operand": (changed("p", steps=(AFFINE, Step(StepKind.ADD, operand=2))), "constants of their kind"),
    "operand 0": (changed("p", steps=(AFFINE, Step(StepKind.ADD))), "constants of their kind"),
    "operand not read": (changed("p", steps=(AFFINE,)), "its further inputs are their operands"),
    "store shift": (changed("p", stores=(Store(BAD_SHIFT),)), "its stores have the constants"),
    "store thresholds": (changed("p", stores=(Store(thresholds=np.zeros(5, np.int64)),)), "its stores have"),
    "bit shift": (changed("t", stores=(Store(np.zeros(5, np.int8)),) * 2), "its stores have the constants"),
    "bit thresholds": (changed("t", stores=(Store(), Store(thresholds=ONES))), "its stores have the constants"),
    "number of stores": (changed("p", stores=(Store(), Store())), "1 outputs|2 inputs and 1 outputs"),
    "other epilogue": (changed("p", epilogue=ir.Epilogue.CLIP, clip_limit=127), "its output type|epilogue FixedPoint"),
    "no steps": (changed("p", fixed_point=None, inputs=("t",)), "the epilogue FixedPoint has"),
    "weights": (changed("t", weights=np.zeros((5, 3, 3, 5), np.int16)), "its weights are int8"),
    "groups": (changed("t", groups=2), "groups divide"),
    "bias": (changed("t", bias=np.zeros(5, np.int64)), "its bias is int32"),
    "operand type": (typed("o", dtype=DType.FLOAT32, fraction_bits=()), "its operands are integers"),
    "operand shape": (typed("o", shape=(4, 2, 5)), "its operands and outputs have one shape"),
    "quantize": (typed("i", dtype=DType.INT32), "it takes float32 to int8 or int16|it reads int8"),
    "concatenate type": (typed("cat", dtype=DType.INT8), "writes the wider"),
    "concatenate bits": (typed("cat", fraction_bits=(3,)), "and their fraction bits"),
    "concatenate shape": (typed("cat", shape=(4, 4, 11)), "its output has the channels|fraction bits"),
    "exact": (typed("p", dtype=DType.INT64), "is int64, exact; a file holds"),
    "mean": (typed("mean:integers", dtype=DType.FLOAT32, fraction_bits=()), "it takes float32 to float32, or int8"),
    "overflow": (
        changed("p", steps=(*[Step(StepKind.AFFINE, np.full(5, 2**30, np.int32))] * 2, ADD)),
        "step 2 of 3 .affine. reaches",
    ),
}


def test_the_graph_keeps_all_rules():
    spec.check(GRAPH, lowered=True)


@pytest.mark.parametrize("case", BROKEN)
def test_rules(case):
    broken, message = BROKEN[case]
    with pytest.raises(spec.SpecError, match=message):
        spec.check(broken, lowered=True)


def test_exact_tensors_are_for_imported_graphs():
    exact = Sketch((4, 4, 5)).quantize("i").exact_norm("n").graph()
    spec.check(exact)
    with pytest.raises(spec.SpecError, match="int64, exact"):
        spec.check(exact, lowered=True)


def test_tensors_know_their_formats():
    tensor = Tensor("", DType.INT8, (2, 2, 2), (3, -1))
    assert tensor.scale_bits.tolist() == [3, -1] and tensor.reshaped("f", (8,)).fraction_bits == (3, -1) * 4
    assert tensor.has_format(DType.INT8, np.array([3, -1])) and not tensor.has_format(DType.INT8, np.array(3))
    assert ir.shortest(np.array([2, 2])) == (2,) and ir.shortest(np.array([2, 1])) == (2, 1)
