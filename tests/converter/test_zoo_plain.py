"""Models of larq-zoo as Larq publishes them: every layer of the file computes what Keras computes on the same inputs.

Bits and integers are equal, float32 within what rounding explains (`larq_clip.converter.verify`). Two of them; all
with LARQ_CLIP_ALL_ZOO=1, which takes minutes.
"""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import ops_of
from zoo_support import CASES, EVERYTHING, trained

from larq_clip.converter import convert_keras_model, ir, reader, verify_keras_model

pytest.importorskip("larq_zoo", reason="larq-zoo is not installed: pip install 'larq-clip[zoo]'")

FAST = ("BiRealNet", "RealToBinaryNet")
FLIPPED = 1e-5  # the share of signs that rounding may turn; those of weights as random as these: none


@pytest.mark.parametrize("name", CASES if EVERYTHING else FAST)
def test_zoo_models_are_exact(name):
    from larq_clip._keras import tf

    # These models need no autograph, and converting their many layers takes most of the time.
    model, x = tf.autograph.experimental.do_not_convert(trained)(name)
    data = convert_keras_model(model)
    found = verify_keras_model(model, data, x).require()
    assert found.flipped <= FLIPPED * found.values and found.constants
    assert all(np.isfinite(difference) for difference in found.outputs.values())

    graph = reader.read(data)
    binary = ops_of(graph, ir.BinaryConv2D)
    assert len(binary) == CASES[name].binary * CASES[name].planes
    layers = [layer for layer in model.layers if getattr(layer, "input_quantizer", None) is not None]
    assert len(layers) == CASES[name].binary
    signs = sum(int(np.prod(layer.kernel.shape)) for layer in layers) * CASES[name].planes
    assert signs == sum(op.weights.size for op in binary)
