"""Models of larq-zoo as Larq publishes them, and clipped: every layer of the file computes what Keras computes.

Each on the same inputs: bits and integers are equal, float32 within what rounding explains
(`larq_clip.converter.verify`). Two of them as they are, two clipped; all with LARQ_CLIP_ALL_ZOO=1, which takes minutes.
One model is alive at a time.
"""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import ops_of
from support import neon_outputs
from zoo_support import CASES, EVERYTHING, converted, record

from larq_clip.converter import ir, reader, report, verify_keras_model
from larq_clip.interpreter import Interpreter

pytest.importorskip("larq_zoo", reason="larq-zoo is not installed: pip install 'larq-clip[zoo]'")

FAST = (("BiRealNet", "plain"), ("RealToBinaryNet", "plain"), ("DoReFaNet", "clipped"), ("QuickNetSmall", "clipped"))
ALL = tuple((name, fidelity) for fidelity in ("plain", "clipped") for name in CASES)
FLIPPED = 1e-5  # the share of signs that rounding may turn; those of weights as random as these: none


@pytest.fixture(scope="module", params=ALL if EVERYTHING else FAST, ids="-".join)
def zoo_model(request):
    """A model, kept while the tests below run on it."""
    return converted(*request.param)


def test_zoo_models_are_exact(zoo_model):
    name, _, model, x, data, _ = zoo_model
    found = verify_keras_model(model, data, x).require()
    assert found.flipped <= FLIPPED * found.values and found.constants
    assert all(np.isfinite(difference) for difference in found.outputs.values())
    described = report.describe(data)
    assert described["size_ratio"] <= 1.05 and described["arena_ratio"] <= 1.10

    binary = ops_of(reader.read(data), ir.BinaryConv2D)
    assert len(binary) == CASES[name].binary * CASES[name].planes
    layers = [layer for layer in model.layers if getattr(layer, "input_quantizer", None) is not None]
    assert len(layers) == CASES[name].binary
    signs = sum(int(np.prod(layer.kernel.shape)) for layer in layers) * CASES[name].planes
    assert signs == sum(op.weights.size for op in binary)
    record(zoo_model, exact=True)


@pytest.mark.aarch64
def test_neon_computes_the_same(zoo_model, aarch64_cli, tmp_path):
    expected = Interpreter(zoo_model.data).predict(zoo_model.x)
    np.testing.assert_array_equal(neon_outputs(aarch64_cli, zoo_model.data, zoo_model.x, tmp_path), expected)
