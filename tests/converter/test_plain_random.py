"""Random graphs of plain layers: written, read and run on the C runtime, every tensor stays the same."""

from __future__ import annotations

import numpy as np
from converter_support import dyadic
from fixed_point_support import check_on_runtime
from hypothesis import HealthCheck, given, settings
from random_networks import plain_networks

from larq_clip.converter import ir, pipeline, reader, writer


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(plain_networks())
def test_random_networks_stay_the_same_to_the_device(graph):
    lowered = pipeline.lower(graph)
    data = writer.write(lowered)
    again = reader.read(data)
    x = dyadic(np.random.default_rng(3), (2, *graph.tensors["x"].shape))
    expected = ir.evaluate(lowered, {"x": x})
    for name, array in ir.evaluate(again, {"x": x}).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    check_on_runtime(data, x, expected)
