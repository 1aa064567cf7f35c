"""Layers whose forward pass is an integer program: binary ones with a clipped accumulator, and what lies between them.

`QuantConv2D` and `QuantDense` are Larq's with a quantizer of the accumulator, ``accumulator_quantizer=``:

output = activation(accumulator_quantizer(input_quantizer(input) * kernel_quantizer(kernel)) + bias)

They are subclasses of Larq's layers, so summary, metrics, pad values and constraints work as there. With
``accumulator_quantizer=None`` they compute what Larq's layers compute. With one they compute in float32 also under a
mixed-precision policy, and return float32, since float16 holds no integer above 2048 and bfloat16 none above 256.

`FixedPointBatchNormalization`, `StorageQuantizer`, `Add`, `Concatenate`, `Int8Conv2D`, `Int8DepthwiseConv2D` and
`Int8Dense` compute exactly what `larq_clip.fixed_point` does in NumPy, in float64 where float32 cannot.
"""

from __future__ import annotations

import weakref
from typing import Any

from larq_clip._batch_norm import FixedPointBatchNormalization
from larq_clip._int8 import Int8Conv2D, Int8Dense, Int8DepthwiseConv2D
from larq_clip._keras import keras, lq, tf
from larq_clip._storage import Add, Concatenate, StorageQuantizer
from larq_clip.quantizers import EXACT_DTYPES, PACKAGE, AccumulatorClip, compute_exactly, require_exact_dtype


def _exact_quantizer(quantizer: Any, layer: keras.layers.Layer) -> Any:
    """A copy of a quantizer that a mixed-precision policy makes compute in 16 bits, in the dtype of its layer.

    In float16 a weight of -1e-8 is -0, which has the sign +1. A copy, since the object may serve other layers.
    """
    if not isinstance(quantizer, keras.layers.Layer) or quantizer.compute_dtype in EXACT_DTYPES:
        return quantizer
    if quantizer.weights:
        raise ValueError(
            f"quantizer '{quantizer.name}' ({type(quantizer).__name__}) of layer '{layer.name}' computes in "
            f"{quantizer.compute_dtype} and has weights; build it with dtype='float32'"
        )
    copy = type(quantizer).from_config({**quantizer.get_config(), "dtype": layer.compute_dtype})
    if hasattr(quantizer, "_custom_metrics"):  # which Larq keeps out of the config
        copy._custom_metrics = quantizer._custom_metrics
    return copy


class _AccumulatorQuantizer(keras.layers.Layer):
    """What both layers share: the argument, its checks, its config."""

    def __init__(self, *args, accumulator_quantizer=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.accumulator_quantizer = lq.quantizers.get(accumulator_quantizer)
        if self.accumulator_quantizer is not None:
            compute_exactly(self)
            if self.compute_dtype in EXACT_DTYPES:
                for name in ("input_quantizer", "kernel_quantizer"):
                    setattr(self, name, _exact_quantizer(getattr(self, name), self))

    def build(self, input_shape):
        if self.accumulator_quantizer is not None:
            require_exact_dtype(
                self.compute_dtype, f"{type(self).__name__} '{self.name}' with an accumulator_quantizer"
            )
            self._claim_quantizer()
        super().build(input_shape)

    def _claim_quantizer(self) -> None:
        """One clip has one switch and one pair of counters, so it can serve one layer."""
        quantizer = self.accumulator_quantizer
        if not isinstance(quantizer, AccumulatorClip):
            return
        owner = getattr(quantizer, "_owner", lambda: None)()
        if owner is not None and owner is not self:
            raise ValueError(
                f"accumulator_quantizer of '{self.name}' is the AccumulatorClip object that '{owner.name}' uses "
                "already, so their saturation could not be told apart; give each layer an object of its own, or the "
                "string 'accumulator_clip'"
            )
        quantizer._owner = weakref.ref(self)

    # Keras hands `training` to the layers inside a layer only if that layer takes it, and the clip counts in training.
    def call(self, inputs, training=None):
        return super().call(inputs)

    def _quantize_accumulator(self, accumulator: tf.Tensor) -> tf.Tensor:
        return accumulator if self.accumulator_quantizer is None else self.accumulator_quantizer(accumulator)

    def get_config(self):
        return {
            **super().get_config(),
            "accumulator_quantizer": lq.quantizers.serialize(self.accumulator_quantizer),
        }


@keras.utils.register_keras_serializable(PACKAGE)
class QuantConv2D(_AccumulatorQuantizer, lq.layers.QuantConv2D):
    """`larq.layers.QuantConv2D` whose accumulator goes through a quantizer, before bias and activation.

    Padding acts on the quantized input, before the sum, as in Larq. Groups, dilation and both data formats are those of
    Keras; the quantizer acts element by element and does not care.

    # Arguments
        accumulator_quantizer: quantizer of the raw accumulator, a string, config or callable, e.g.
            "accumulator_clip" or `AccumulatorClip(step=2)`. An `AccumulatorClip` object serves one layer only.
        others: as in `larq.layers.QuantConv2D`.

    # Input shape
        ``(batch, height, width, channels)`` float32 or float64 (others are cast), or channels first.

    # Output shape
        ``(batch, new_height, new_width, filters)``, or channels first.

    # Raises
        ValueError: when built with an accumulator_quantizer and variables in float16 or bfloat16, or with the
            `AccumulatorClip` object of another layer.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3.3.
    """

    def convolution_op(self, inputs, kernel):
        accumulator = super().convolution_op(inputs, kernel)
        return accumulator if self.groups > 1 else self._quantize_accumulator(accumulator)

    # With groups Keras compiles `convolution_op`, for a CPU, as a function that does not know `training`: it would keep
    # what it was traced with. So there the quantizer comes behind it.
    def _jit_compiled_convolution_op(self, inputs, kernel):
        return self._quantize_accumulator(super()._jit_compiled_convolution_op(inputs, kernel))


class _AccumulatorDense(keras.layers.Dense):
    """Keras' dense layer, opened between product and bias. Larq's layer finds it in Dense's place."""

    def call(self, inputs):
        if self.accumulator_quantizer is None:
            return super().call(inputs)
        inputs = tf.cast(inputs, self.compute_dtype)
        kernel = tf.convert_to_tensor(self.kernel)
        product = tf.matmul(inputs, kernel) if inputs.shape.rank == 2 else tf.tensordot(inputs, kernel, axes=1)
        outputs = self._quantize_accumulator(product)
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@keras.utils.register_keras_serializable(PACKAGE)
class QuantDense(_AccumulatorQuantizer, lq.layers.QuantDense, _AccumulatorDense):
    """`larq.layers.QuantDense` whose accumulator goes through a quantizer, before bias and activation.

    # Arguments
        accumulator_quantizer: quantizer of the raw accumulator, a string, config or callable, e.g.
            "accumulator_clip" or `AccumulatorClip(step=2)`. An `AccumulatorClip` object serves one layer only.
        others: as in `larq.layers.QuantDense`.

    # Input shape
        ``(batch, ..., in_channels)`` float32 or float64; neither sparse nor ragged with an accumulator_quantizer.

    # Output shape
        ``(batch, ..., units)``.

    # Raises
        ValueError: when built with an accumulator_quantizer and variables in float16 or bfloat16, or with the
            `AccumulatorClip` object of another layer.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3.3.
    """


__all__ = [
    "Add",
    "Concatenate",
    "FixedPointBatchNormalization",
    "Int8Conv2D",
    "Int8Dense",
    "Int8DepthwiseConv2D",
    "QuantConv2D",
    "QuantDense",
    "StorageQuantizer",
]
