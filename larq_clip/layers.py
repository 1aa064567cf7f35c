"""Layers whose forward pass is an integer program: binary ones with a clipped accumulator, and what lies between them.

`QuantConv2D` and `QuantDense` are Larq's with a quantizer of the accumulator, ``accumulator_quantizer=``:

output = activation(accumulator_quantizer(input_quantizer(input) * kernel_quantizer(kernel)) + bias)

They are subclasses of Larq's layers, so summary, metrics, pad values and constraints work as there. With
``accumulator_quantizer=None`` they compute what Larq's layers compute. With one they compute in float32 also under a
mixed-precision policy, and return float32, since float16 holds no integer above 2048 and bfloat16 none above 256.

With ``scaled_kernel=True`` the kernel quantizer gives -s and +s, one s per filter, as Larq's magnitude_aware_sign
(Bi-Real Net) and XNOR-Net's do. Then the accumulator is that of the signs, an integer, and s multiplies it behind its
quantizer:

output = activation(s accumulator_quantizer(input_quantizer(input) * sign(kernel_quantizer(kernel))) + bias)

Where nothing saturates, that is what Larq computes, and so is the gradient, that of s included: all of it goes through
the kernel quantizer. `quantize_scale` puts s on a grid of 16 bits, with rounding taken as the identity, so that the
output is exact. The scale is a multiplier of its own, and not folded into the batch norm that follows: that keeps its
variables, and its format does not depend on another layer's kernel. A converter may multiply the two integers.

With ``input_levels=n`` the input quantizer gives levels m / n, m = 0 ... n, as Larq's heaviside (n = 1) and DoReFa of k
bits do (n = 2^k - 1; DoReFa-Net, Riptide). Then the accumulator is the sum of the products m w, an integer of magnitude
up to n times the number of taps, and s / n multiplies it:

output = activation(s / n accumulator_quantizer(n input_quantizer(input) * sign(kernel_quantizer(kernel))) + bias)

`FixedPointBatchNormalization`, `StorageQuantizer`, `Add`, `Concatenate`, `Int8Conv2D`, `Int8DepthwiseConv2D` and
`Int8Dense` compute exactly what `larq_clip.fixed_point` does in NumPy, in float64 where float32 cannot. `TakeChannels`
and `PadChannels` move channels.
"""

from __future__ import annotations

from larq_clip._accumulator import AccumulatorQuantizer
from larq_clip._batch_norm import FixedPointBatchNormalization
from larq_clip._channels import PadChannels, TakeChannels
from larq_clip._int8 import Int8Conv2D, Int8Dense, Int8DepthwiseConv2D
from larq_clip._keras import keras, lq, tf
from larq_clip._storage import Add, Concatenate, StorageQuantizer
from larq_clip.quantizers import PACKAGE


@keras.utils.register_keras_serializable(PACKAGE)
class QuantConv2D(AccumulatorQuantizer, lq.layers.QuantConv2D):
    """`larq.layers.QuantConv2D` whose accumulator goes through a quantizer, before bias and activation.

    Padding acts on the quantized input, before the sum, as in Larq. Groups, dilation and both data formats are those of
    Keras; the quantizer acts element by element and does not care.

    # Arguments
        accumulator_quantizer: quantizer of the raw accumulator, a string, config or callable, e.g.
            "accumulator_clip" or `AccumulatorClip(step=2)`. An `AccumulatorClip` object serves one layer only.
        scaled_kernel: whether the kernel quantizer gives -s and +s with one s per filter, which then multiplies behind
            the accumulator's quantizer; needs an accumulator_quantizer.
        scale_fraction_bits: fraction bits of s, an integer or one per filter; None for float. See `quantize_scale`.
        input_levels: n of inputs m / n, m = 0 ... n, which the input quantizer gives: 1, 3 or 7; None of -1 and +1.
            What is clipped is then the integer sum of m w, and 1 / n multiplies it; needs an accumulator_quantizer.
        others: as in `larq.layers.QuantConv2D`.

    # Input shape
        ``(batch, height, width, channels)`` float32 or float64 (others are cast), or channels first.

    # Output shape
        ``(batch, new_height, new_width, filters)``, or channels first.

    # Raises
        ValueError: when built with an accumulator_quantizer and variables in float16 or bfloat16, with the
            `AccumulatorClip` object of another layer, or with input_levels and pad_values that are none.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3.3.
    """

    def convolution_op(self, inputs, kernel):
        product = super().convolution_op
        return product(inputs, kernel) if self.groups > 1 else self._binary_product(product, inputs, kernel)

    # With groups Keras compiles `convolution_op`, for a CPU, as a function that does not know `training`: it would keep
    # what it was traced with. So there the quantizer comes behind it.
    def _jit_compiled_convolution_op(self, inputs, kernel):
        return self._binary_product(super()._jit_compiled_convolution_op, inputs, kernel)


class _AccumulatorDense(keras.layers.Dense):
    """Keras' dense layer, opened between product and bias. Larq's layer finds it in Dense's place."""

    def call(self, inputs):
        if self.accumulator_quantizer is None:
            return super().call(inputs)
        inputs = tf.cast(inputs, self.compute_dtype)
        product = tf.matmul if inputs.shape.rank == 2 else (lambda a, b: tf.tensordot(a, b, axes=1))
        outputs = self._binary_product(product, inputs, tf.convert_to_tensor(self.kernel))
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@keras.utils.register_keras_serializable(PACKAGE)
class QuantDense(AccumulatorQuantizer, lq.layers.QuantDense, _AccumulatorDense):
    """`larq.layers.QuantDense` whose accumulator goes through a quantizer, before bias and activation.

    # Arguments
        accumulator_quantizer: quantizer of the raw accumulator, a string, config or callable, e.g.
            "accumulator_clip" or `AccumulatorClip(step=2)`. An `AccumulatorClip` object serves one layer only.
        scaled_kernel: whether the kernel quantizer gives -s and +s with one s per filter, which then multiplies behind
            the accumulator's quantizer; needs an accumulator_quantizer.
        scale_fraction_bits: fraction bits of s, an integer or one per filter; None for float. See `quantize_scale`.
        input_levels: n of inputs m / n, m = 0 ... n, which the input quantizer gives: 1, 3 or 7; None of -1 and +1.
            What is clipped is then the integer sum of m w, and 1 / n multiplies it; needs an accumulator_quantizer.
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
    "PadChannels",
    "QuantConv2D",
    "QuantDense",
    "StorageQuantizer",
    "TakeChannels",
]
