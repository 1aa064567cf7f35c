"""Layers with weights, called so that their sums do not round.

What a layer computes is defined by its sum of products. In which order float32 rounds it is TensorFlow's affair, and
may be off by gamma(n) sum |w x| (`larq_clip.converter.rounding`), which for thousands of terms hides a wrong weight. So
the reference of a verification is a twin of the layer in float64, with the kernel and the bias as the layer multiplies
with them, and rounds its sum once, to float32. Quantizers and activation stay the layer's own, in float32.
"""

from __future__ import annotations

import warnings
from typing import Any

from larq_clip import layers as clipped
from larq_clip._keras import keras, lq, tf
from larq_clip._scope import quantized_scope

LARQ_LAYERS: tuple[type, ...] = (
    lq.layers.QuantConv1D,
    lq.layers.QuantConv2D,
    lq.layers.QuantConv2DTranspose,
    lq.layers.QuantDense,
    lq.layers.QuantDepthwiseConv2D,
    lq.layers.QuantSeparableConv2D,
)
# A subclass may compute anything.
TYPES: tuple[type, ...] = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Dense,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    *LARQ_LAYERS,
    clipped.QuantConv2D,
    clipped.QuantDense,
)
KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
NOT_OF_THE_SUM = ("_quantizer", "_regularizer", "_constraint")


def can_sum_exactly(layer: Any) -> bool:
    """Whether a layer has a twin; not where it rounds its sum itself, to the integers of a clip."""
    clip = getattr(layer, "accumulator_quantizer", None)
    return type(layer) in TYPES and clip is None and layer.built and layer.compute_dtype == layer.dtype == "float32"


class ExactSums:
    """The twin of a layer.

    Args:
        layer: one that `can_sum_exactly`.
    """

    def __init__(self, layer: Any):
        self._layer = layer
        with warnings.catch_warnings():  # of initializers that are functions, and not needed here
            warnings.simplefilter("ignore")
            config = layer.get_config()
        changes: dict[str, Any] = {key: None for key in config if key.endswith(NOT_OF_THE_SUM)}
        changes.update((key, "zeros") for key in config if key.endswith("_initializer"))
        self._twin = type(layer).from_config({**config, **changes, "activation": "linear", "dtype": "float64"})

    def __call__(self, x: Any) -> Any:
        """What the layer computes of float32 `x`, its sum with the bias rounded once."""
        layer, twin = self._layer, self._twin
        quantizer = getattr(layer, "input_quantizer", None)
        x = tf.cast(x if quantizer is None else quantizer(x), tf.float64)
        if not twin.built:
            twin.build(x.shape)
            with quantized_scope(True):
                for name in (*KERNELS, "bias"):
                    if getattr(layer, name, None) is not None:
                        getattr(twin, name).assign(tf.cast(tf.convert_to_tensor(getattr(layer, name)), tf.float64))
        result = tf.cast(twin(x), tf.float32)
        return result if layer.activation is None else layer.activation(result)
