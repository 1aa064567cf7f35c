"""Models of larq-zoo, clipped and quantized: the file computes on the C runtime what Keras computes, bit for bit.

Four of them; all with LARQ_CLIP_ALL_ZOO=1, which takes minutes.
"""

from __future__ import annotations

import functools
import time

import numpy as np
import pytest
from support import neon_outputs
from zoo_support import CASES, CLIPPED, EVERYTHING, quantized, record

from larq_clip.converter import convert_keras_model, reader, report, verify_keras_model
from larq_clip.converter.ir import DType
from larq_clip.interpreter import Interpreter

pytest.importorskip("larq_zoo", reason="larq-zoo is not installed: pip install 'larq-clip[zoo]'")

FAST = ("BinaryDenseNet28", "BinaryResNetE18", "BiRealNet", "QuickNetSmall")
# A binary kernel on float images is a sum of float32, whose last bits depend on its order; PReLU and the gates of
# RealToBinaryNet are float32 between stored integers.
FLOAT_PARTS = ("BinaryAlexNet", "RealToBinaryNet")


@functools.cache
def converted(name):
    """A model, its images, its file and the seconds that converting took."""
    from larq_clip._keras import tf

    # These models need no autograph, and converting their many layers takes most of the time.
    model, x = tf.autograph.experimental.do_not_convert(quantized)(name)
    start = time.perf_counter()
    data = convert_keras_model(model)
    return model, x, data, time.perf_counter() - start


@pytest.mark.parametrize("name", CLIPPED if EVERYTHING else FAST)
def test_zoo_models_are_exact(name):
    from larq_clip._keras import keras

    model, x, data, seconds = converted(name)
    described = report.describe(data)
    assert described["size_ratio"] <= 1.05 and described["arena_ratio"] <= 1.10
    verified = verify_keras_model(model, data, x, constants=False).require()
    assert len(verified.tensors) > CASES[name].binary
    if name in FLOAT_PARTS:
        record(name, "integer", data, exact=True, seconds=seconds)
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
    record(name, "integer", data, exact=True, seconds=seconds)


@pytest.mark.aarch64
@pytest.mark.parametrize("name", CLIPPED if EVERYTHING else FAST)
def test_neon_computes_the_same(name, aarch64_cli, tmp_path):
    _, x, data, _ = converted(name)
    np.testing.assert_array_equal(neon_outputs(aarch64_cli, data, x, tmp_path), Interpreter(data).predict(x))
