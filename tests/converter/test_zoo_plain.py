"""Models of larq-zoo as Larq publishes them, and clipped: every layer of the file computes what Keras computes.

Each on the same inputs: bits and integers are equal, float32 within what rounding explains
(`larq_clip.converter.verify`). Two of them as they are, one clipped; all with LARQ_CLIP_ALL_ZOO=1, which takes minutes.
"""

from __future__ import annotations

import functools
import time

import numpy as np
import pytest
from converter_support import ops_of
from support import neon_outputs
from zoo_support import CASES, CLIPPED, EVERYTHING, clipped, record, trained

from larq_clip.converter import convert_keras_model, ir, reader, report, verify_keras_model
from larq_clip.interpreter import Interpreter

pytest.importorskip("larq_zoo", reason="larq-zoo is not installed: pip install 'larq-clip[zoo]'")

FAST = (("BiRealNet", "plain"), ("RealToBinaryNet", "plain"), ("QuickNetSmall", "clipped"))
ALL = (*((name, "plain") for name in CASES), *((name, "clipped") for name in CLIPPED))
FLIPPED = 1e-5  # the share of signs that rounding may turn; those of weights as random as these: none


@functools.cache
def converted(name, fidelity):
    """A model, its images, its file and the seconds that converting took."""
    from larq_clip._keras import tf

    # These models need no autograph, and converting their many layers takes most of the time.
    build = trained if fidelity == "plain" else clipped
    model, x = tf.autograph.experimental.do_not_convert(build)(name)
    start = time.perf_counter()
    data = convert_keras_model(model)
    return model, x, data, time.perf_counter() - start


@pytest.mark.parametrize("name, fidelity", ALL if EVERYTHING else FAST)
def test_zoo_models_are_exact(name, fidelity):
    model, x, data, seconds = converted(name, fidelity)
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
    record(name, fidelity, data, exact=True, seconds=seconds)


@pytest.mark.aarch64
@pytest.mark.parametrize("name, fidelity", ALL if EVERYTHING else FAST)
def test_neon_computes_the_same(name, fidelity, aarch64_cli, tmp_path):
    _, x, data, _ = converted(name, fidelity)
    np.testing.assert_array_equal(neon_outputs(aarch64_cli, data, x, tmp_path), Interpreter(data).predict(x))
