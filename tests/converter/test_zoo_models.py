"""Models of larq-zoo, clipped and quantized: the file computes on the C runtime what Keras computes, bit for bit.

Five of them; all with LARQ_CLIP_ALL_ZOO=1, which takes minutes. One model is alive at a time.
"""

from __future__ import annotations

import numpy as np
import pytest
from support import neon_outputs
from zoo_support import CASES, EVERYTHING, converted, record

from larq_clip.converter import reader, report, verify_keras_model
from larq_clip.converter.ir import DType
from larq_clip.interpreter import Interpreter

pytest.importorskip("larq_zoo", reason="larq-zoo is not installed: pip install 'larq-clip[zoo]'")

FAST = ("BinaryDenseNet28", "BinaryResNetE18", "BiRealNet", "DoReFaNet", "QuickNetSmall")
# A binary kernel on float images is a sum of float32, whose last bits depend on its order; PReLU and the gates of
# RealToBinaryNet are float32 between stored integers.
FLOAT_PARTS = ("BinaryAlexNet", "RealToBinaryNet")


@pytest.fixture(scope="module", params=CASES if EVERYTHING else FAST)
def zoo_model(request):
    """A model, kept while the tests below run on it."""
    return converted(request.param, "integer")


def test_zoo_models_are_exact(zoo_model):
    from larq_clip._keras import keras

    name, _, model, x, data, _ = zoo_model
    described = report.describe(data)
    assert described["size_ratio"] <= 1.05 and described["arena_ratio"] <= 1.10
    verified = verify_keras_model(model, data, x, constants=False).require()
    assert len(verified.tensors) > CASES[name].binary
    if name in FLOAT_PARTS:
        record(zoo_model, exact=True)
        return
    assert not verified.flipped
    runtime = Interpreter(data, keep_tensors=True).tensors(x)
    logits = model.layers[-1].input
    before, expected = keras.Model(model.inputs, [logits, model.output])(x, training=False)
    assert np.ptp(expected) > 0 and np.ptp(before) > 0

    graph = reader.read(data)
    softmax = graph.ops[-1]
    assert softmax.type == "Softmax" and softmax.output == graph.outputs[0]
    np.testing.assert_allclose(runtime[softmax.output], expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(runtime[softmax.input], np.asarray(before).astype(np.float32))
    floats = {tensor for tensor, info in graph.tensors.items() if info.dtype is DType.FLOAT32}
    assert floats == {*graph.inputs, softmax.input, softmax.output}
    record(zoo_model, exact=True)


@pytest.mark.aarch64
def test_neon_computes_the_same(zoo_model, aarch64_cli, tmp_path):
    expected = Interpreter(zoo_model.data).predict(zoo_model.x)
    np.testing.assert_array_equal(neon_outputs(aarch64_cli, zoo_model.data, zoo_model.x, tmp_path), expected)
