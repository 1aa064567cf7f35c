"""Batch normalization, of Keras and in fixed point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larq_clip._keras import tf
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor
from larq_clip.converter.keras_importer import fixed_point
from larq_clip.converter.keras_importer.context import LayerImport


def batch_norm(call: LayerImport, source: Tensor) -> Tensor:
    layer = call.layer
    if layer.virtual_batch_size is not None:  # it splits the batch, so that the axes are others
        raise call.error(f"its virtual_batch_size is {layer.virtual_batch_size}", "leave it out, inference needs none")
    axes = tuple(np.atleast_1d(layer.axis).tolist())
    if axes != (len(source.shape),):
        raise call.error(f"its axis is {axes} of {len(source.shape) + 1}", "normalize the last axis, axis=-1")
    mean = call.constant("moving_mean", layer.moving_mean)
    variance = call.constant("moving_variance", layer.moving_variance)
    if np.any(variance + np.float32(layer.epsilon) <= 0):
        raise call.error("its moving_variance plus epsilon is not positive", "set a larger epsilon")

    # The affine op that it may become reads float32, and int8 with one scale.
    plain = source.dtype not in (DType.BIT, DType.INT16) and len(source.fraction_bits) <= 1
    return call.emit(
        ir.BatchNorm,
        source if plain else call.builder.as_float(source),
        Tensor(call.name, DType.FLOAT32, source.shape),
        gamma=call.constant("gamma", layer.gamma) if layer.scale else np.ones_like(mean),
        beta=call.constant("beta", layer.beta) if layer.center else np.zeros_like(mean),
        mean=mean,
        variance=variance,
        epsilon=float(layer.epsilon),
        fused=bool(layer.fused) and len(source.shape) == 3,
        keras=keras_evaluator(layer),
    )


def keras_evaluator(layer: Any) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What the Keras layer computes in inference; float64, from which a sign is the same, rounded to float32."""
    return lambda x: layer(tf.constant(x), training=False).numpy().astype(np.float32, copy=False)


def fixed_point_batch_norm(call: LayerImport, source: Tensor) -> Tensor:
    return fixed_point.batch_norm(call, source, _affine_of_floats)


def _affine_of_floats(call: LayerImport, source: Tensor, integers: Any) -> Tensor:
    unit = np.ldexp(1.0, -np.asarray(integers.fraction_bits))
    zero = np.zeros(source.channels, np.float32)
    return call.emit(
        ir.BatchNorm,
        call.builder.as_float(source),
        Tensor(call.name, DType.FLOAT32, source.shape),
        gamma=call.constant("multiplier", integers.multiplier * unit),
        beta=call.constant("offset", integers.offset * unit),
        mean=zero,
        variance=zero + 1,
        epsilon=0.0,
        fused=False,
        keras=keras_evaluator(call.layer),
    )
