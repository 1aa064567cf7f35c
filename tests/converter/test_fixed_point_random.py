"""Random graphs of fixed-point layers: lowered, written, read and run on the C runtime, every tensor stays the same."""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import assert_same, dyadic
from fixed_point_support import check_on_runtime
from hypothesis import HealthCheck, given, settings
from random_networks import moved_network, networks

from larq_clip.converter import ir, pipeline, reader, writer
from larq_clip.converter.ir import DType
from larq_clip.converter.passes.float_outputs import float_outputs


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_random_networks_stay_the_same_to_the_device(graph):
    check_to_the_device(graph)


@pytest.mark.parametrize("seed", range(3))
def test_moved_integers_and_bits_stay_the_same_to_the_device(seed):
    check_to_the_device(moved_network(seed))


def check_to_the_device(graph: ir.Graph) -> None:
    lowered = pipeline.lower(graph)
    assert_same(float_outputs(graph), lowered)
    assert not {DType.INT32, DType.INT64} & {tensor.dtype for tensor in lowered.tensors.values()}
    data = writer.write(lowered)
    again = reader.read(data)
    x = dyadic(np.random.default_rng(3), (2, *graph.tensors["x"].shape))
    expected = ir.evaluate(lowered, {"x": x})
    for name, array in ir.evaluate(again, {"x": x}).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    check_on_runtime(data, x, expected)
