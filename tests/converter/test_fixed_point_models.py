"""Whole models of quantize_model: Keras, the imported graph, the lowered graph and the file compute the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import ops_of, types
from fixed_point_support import MODELS, check, images, quantized

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Epilogue

FORMATS = (
    {},
    {"residual_bits": 16},
    {"granularity": "tensor"},
    {"variables": "paper"},
    {"residual_bits": 16, "granularity": "tensor", "variables": "paper"},
)


@pytest.mark.parametrize("arguments", FORMATS, ids=lambda a: "-".join(map(str, a.values())) or "default")
@pytest.mark.parametrize("name", MODELS)
def test_quantized_models_are_exact(name, arguments):
    lowered = check(quantized(MODELS[name], **arguments), images())
    assert {t.dtype for n, t in lowered.tensors.items() if n not in (*lowered.inputs, *lowered.outputs)} <= {
        DType.BIT,
        DType.INT8,
        DType.INT16,
    }, "integers only between input quantization and the outputs"
