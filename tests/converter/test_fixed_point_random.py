"""Random graphs of fixed-point layers: lowered, written, read and run on the C runtime, every tensor stays the same."""

from __future__ import annotations

import pytest
from converter_support import assert_same
from fixed_point_support import check_the_same_to_the_device
from hypothesis import HealthCheck, given, settings
from random_networks import moved_network, networks

from larq_clip.converter import ir
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
    lowered = check_the_same_to_the_device(graph)
    assert_same(float_outputs(graph), lowered)
    assert not {DType.INT32, DType.INT64} & {tensor.dtype for tensor in lowered.tensors.values()}
