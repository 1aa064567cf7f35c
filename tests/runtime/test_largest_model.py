"""A model of as many tensors and ops as a file may hold: what grows with pairs of them is still done in a moment."""

from __future__ import annotations

import time

import numpy as np

from larq_clip.converter import codec, ir, writer
from larq_clip.interpreter import Interpreter

SECONDS = 20  # measured: below 1 on an idle machine; a test machine may be ten times slower
CHANNELS = 3


def test_as_many_ops_as_accepted():
    names = [f"t{i}" for i in range(codec.MAX_ITEMS)]
    tensors = [ir.Tensor(name, ir.DType.FLOAT32, (CHANNELS,)) for name in names]
    scale = np.full(CHANNELS, -1, np.float32)
    ops = [ir.Affine(b, (a,), (b,), multiplier=scale) for a, b in zip(names, names[1:], strict=False)]
    data = writer.write(ir.Graph.build("chain", tensors, ops, [names[0]], [names[-1]]))
    start = time.monotonic()
    interpreter = Interpreter(data)
    assert time.monotonic() - start < SECONDS
    assert len(interpreter.ops()) == codec.MAX_ITEMS - 1
    x = np.array([[1, -2, 3]], np.float32)
    np.testing.assert_array_equal(interpreter.predict(x), -x)
