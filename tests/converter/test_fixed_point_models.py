"""Whole models of quantize_model: Keras, imported graph, lowered graph and file compute the same numbers, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import ops_of, types
from fixed_point_support import MODELS, check, images, quantized

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Epilogue

FORMATS = (
    {},
    {"residual_bits": 16, "granularity": "tensor"},
    {"variables": "paper"},
)
BETWEEN = {DType.BIT, DType.INT8, DType.INT16}


@pytest.mark.parametrize("arguments", FORMATS, ids=lambda a: "-".join(map(str, a.values())) or "default")
@pytest.mark.parametrize("name", MODELS)
def test_quantized_models_are_exact(name, arguments):
    lowered = check(quantized(MODELS[name], **arguments), images())
    between = [t for n, t in lowered.tensors.items() if n not in (*lowered.inputs, *lowered.outputs)]
    assert {tensor.dtype for tensor in between} <= BETWEEN
    assert ops_of(lowered, ir.Quantize) and not ops_of(lowered, ir.BatchNorm) and not ops_of(lowered, ir.Affine)
    binary = {op.epilogue for op in ops_of(lowered, ir.BinaryConv2D)}
    stores = {op.type for op in lowered.ops if getattr(op, "fixed_point", None) is not None and len(op.outputs) > 1}
    if name == "vgg":  # every block is bits in, bits out, but the last, which the int8 classifier reads
        assert types(lowered).count("BinaryConv2D") == 3 and Epilogue.THRESHOLD in binary
        thresholds = [op.thresholds.dtype for op in ops_of(lowered, ir.BinaryConv2D) if op.thresholds is not None]
        assert set(thresholds) == {np.dtype(np.int8)}
    elif name in ("resnet", "quicknet"):  # sums are stored for the shortcut, and their signs taken before rounding
        assert binary == {Epilogue.FIXED_POINT} and "BinaryConv2D" in stores
    else:  # clipped accumulators are what is joined
        assert binary == {Epilogue.CLIP} and ops_of(lowered, ir.Concatenate) and ops_of(lowered, ir.Bitpack)
