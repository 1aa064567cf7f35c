"""Random graphs of plain layers: written, read and run on the C runtime, every tensor stays the same."""

from __future__ import annotations

from fixed_point_support import check_the_same_to_the_device
from hypothesis import HealthCheck, given, settings
from random_networks import plain_networks


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(plain_networks())
def test_random_networks_stay_the_same_to_the_device(graph):
    check_the_same_to_the_device(graph)
