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

`FixedPointBatchNormalization`, `StorageQuantizer`, `Add`, `Concatenate`, `Int8Conv2D`, `Int8DepthwiseConv2D` and
`Int8Dense` compute exactly what `larq_clip.fixed_point` does in NumPy, in float64 where float32 cannot. `TakeChannels`
and `PadChannels` move channels.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from larq_clip import fixed_point
from larq_clip._batch_norm import FixedPointBatchNormalization
from larq_clip._channels import PadChannels, TakeChannels
from larq_clip._int8 import Int8Conv2D, Int8Dense, Int8DepthwiseConv2D
from larq_clip._keras import keras, lq, tf
from larq_clip._storage import Add, Concatenate, StorageQuantizer
from larq_clip.quantizers import (
    EXACT_DTYPES,
    PACKAGE,
    AccumulatorClip,
    compute_exactly,
    require_exact_dtype,
    saturating_round,
)

FLOAT32_BITS = 24  # of an integer that float32 holds


def _registered_function(identifier: Any) -> Any:
    """A function by the config in which Keras saves one; Larq reads only those of classes.

    Raises:
        ValueError: where Keras does not know a function of that name.
    """
    if not isinstance(identifier, dict) or identifier.get("class_name") != "function":
        return identifier
    found = keras.utils.get_registered_object(identifier["config"])
    if found is None:
        raise ValueError(
            f"a layer quantizes with the function {identifier['config']!r}, which Keras does not know; import the "
            "module that registers it (larq_zoo, say), or load the model with custom_objects={name: function}"
        )
    return found


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
    """What both layers share: the arguments, their checks, their config, the scale of a scaled kernel."""

    def __init__(
        self,
        *args,
        accumulator_quantizer=None,
        scaled_kernel: bool = False,
        scale_fraction_bits: int | Sequence[int] | None = None,
        **kwargs,
    ):
        for key in ("input_quantizer", "kernel_quantizer"):
            if key in kwargs:
                kwargs[key] = _registered_function(kwargs[key])
        super().__init__(*args, **kwargs)
        self.accumulator_quantizer = lq.quantizers.get(accumulator_quantizer)
        if self.accumulator_quantizer is not None:
            compute_exactly(self)
            if self.compute_dtype in EXACT_DTYPES:
                for name in ("input_quantizer", "kernel_quantizer"):
                    setattr(self, name, _exact_quantizer(getattr(self, name), self))
        if (scaled_kernel and accumulator_quantizer is None) or (scale_fraction_bits is not None and not scaled_kernel):
            raise ValueError(
                f"{type(self).__name__} '{self.name}' was given accumulator_quantizer={accumulator_quantizer!r}, "
                f"scaled_kernel={scaled_kernel!r} and scale_fraction_bits={scale_fraction_bits!r}; the second needs "
                "the first, the third the second"
            )
        self.scaled_kernel = bool(scaled_kernel)
        self.scale_fraction_bits: int | list[int] | None = None
        if scale_fraction_bits is not None:
            self.scale_fraction_bits = fixed_point.as_fraction_bits(scale_fraction_bits, "scale_fraction_bits")

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
    # Nothing in a binary layer needs autograph, which takes most of the time that building a model of many takes.
    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None):
        return super().call(inputs)

    def _quantize_accumulator(self, accumulator: tf.Tensor) -> tf.Tensor:
        return accumulator if self.accumulator_quantizer is None else self.accumulator_quantizer(accumulator)

    def _binary_product(self, product: Callable[[Any, Any], tf.Tensor], inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """The quantized accumulator, times the scale of the kernel where that has one."""
        if not self.scaled_kernel:
            return self._quantize_accumulator(product(inputs, kernel))
        kernel = tf.convert_to_tensor(kernel)
        scale = self._kernel_scale(kernel)
        # |kernel| is s, so the quotient is exactly -1 or +1; where s is 0, so are all products.
        signs = kernel / tf.where(scale > 0, scale, tf.ones_like(scale))
        scale = tf.reshape(scale, [-1])
        if self.scale_fraction_bits is not None:
            steps = tf.constant(np.ldexp(1.0, -np.asarray(self.scale_fraction_bits)), scale.dtype)
            scale = saturating_round(scale, self._multiplier_bits, steps)
        return scale * self._quantize_accumulator(product(inputs, signs))

    @staticmethod
    def _kernel_scale(kernel: tf.Tensor) -> tf.Tensor:
        """s per filter, broadcast against the kernel; the kernel quantizer's gradient has what s depends on."""
        axes = list(range(kernel.shape.rank - 1))
        return tf.stop_gradient(tf.reduce_max(tf.abs(kernel), axis=axes, keepdims=True))

    @property
    def _multiplier_bits(self) -> int:
        """As many as leave the product with the accumulator exact in float32; 16 where that has 8 bits."""
        clip = self.accumulator_quantizer
        assert isinstance(clip, AccumulatorClip)
        return min(fixed_point.MULTIPLIER_BITS, FLOAT32_BITS - clip.bits + 2)

    def kernel_scale(self) -> np.ndarray:
        """s ``(filters,)`` of a scaled kernel, float32, not rounded.

        Raises:
            ValueError: where the kernel is not scaled, the layer not built, or |quantized kernel| differs in a filter.
        """
        if not self.scaled_kernel or not self.built:
            raise ValueError(
                f"layer '{self.name}' has scaled_kernel={self.scaled_kernel} and built={self.built}; both must be True"
            )
        with lq.context.quantized_scope(True):
            kernel = tf.convert_to_tensor(self.kernel)
        scale = self._kernel_scale(kernel).numpy()
        if not np.all(np.abs(kernel.numpy()) == scale):
            raise ValueError(f"the kernel_quantizer of layer '{self.name}' does not give -s and +s, one s per filter")
        return scale.reshape(-1)

    def quantize_scale(self, fraction_bits: int | Sequence[int] | None = None) -> None:
        r"""Compute with s on a grid from now on; functions traced already do not follow.

        \\[ s_q = \\mathrm{sat}_{16} \\lfloor 2^F s + 1/2 \\rfloor \\]

        Args:
            fraction_bits: F, an integer or one per filter; if None, the largest per filter that hold the present s, so
                that each is exact to 15 bits; one less, that training may double it.

        Raises:
            ValueError: as `kernel_scale`; for other values; where the accumulator has no `AccumulatorClip`.
        """
        if not isinstance(self.accumulator_quantizer, AccumulatorClip):
            raise ValueError(f"layer '{self.name}' has no AccumulatorClip, so its accumulator has no width")
        scale = self.kernel_scale().astype(np.float64)
        if fraction_bits is None:
            exponent = fixed_point.ceil_log2(np.where(scale == 0, 1.0, scale))
            highest = fixed_point.LARGEST_FRACTION_BITS
            fraction_bits = np.clip(self._multiplier_bits - 2 - exponent, -highest, highest).tolist()
        checked = fixed_point.as_fraction_bits(fraction_bits, "scale_fraction_bits")
        if isinstance(checked, list) and len(checked) != scale.size:
            raise ValueError(f"scale_fraction_bits has {len(checked)} elements; '{self.name}' has {scale.size} filters")
        self.scale_fraction_bits = checked

    def scale_integers(self) -> np.ndarray:
        """s_q ``(filters,)``, int32: s on the grid is s_q 2^-scale_fraction_bits.

        Raises:
            ValueError: as `kernel_scale`, and where the scale is not quantized.
        """
        if self.scale_fraction_bits is None:
            raise ValueError(
                f"the scale of layer '{self.name}' is not quantized; call its method quantize_scale() first"
            )
        bits = np.asarray(self.scale_fraction_bits, np.int64)
        return fixed_point.store_reals(self.kernel_scale(), bits, self._multiplier_bits)

    def get_config(self):
        return {
            **super().get_config(),
            "accumulator_quantizer": lq.quantizers.serialize(self.accumulator_quantizer),
            "scaled_kernel": self.scaled_kernel,
            "scale_fraction_bits": self.scale_fraction_bits,
        }


@keras.utils.register_keras_serializable(PACKAGE)
class QuantConv2D(_AccumulatorQuantizer, lq.layers.QuantConv2D):
    """`larq.layers.QuantConv2D` whose accumulator goes through a quantizer, before bias and activation.

    Padding acts on the quantized input, before the sum, as in Larq. Groups, dilation and both data formats are those of
    Keras; the quantizer acts element by element and does not care.

    # Arguments
        accumulator_quantizer: quantizer of the raw accumulator, a string, config or callable, e.g.
            "accumulator_clip" or `AccumulatorClip(step=2)`. An `AccumulatorClip` object serves one layer only.
        scaled_kernel: whether the kernel quantizer gives -s and +s with one s per filter, which then multiplies behind
            the accumulator's quantizer; needs an accumulator_quantizer.
        scale_fraction_bits: fraction bits of s, an integer or one per filter; None for float. See `quantize_scale`.
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
class QuantDense(_AccumulatorQuantizer, lq.layers.QuantDense, _AccumulatorDense):
    """`larq.layers.QuantDense` whose accumulator goes through a quantizer, before bias and activation.

    # Arguments
        accumulator_quantizer: quantizer of the raw accumulator, a string, config or callable, e.g.
            "accumulator_clip" or `AccumulatorClip(step=2)`. An `AccumulatorClip` object serves one layer only.
        scaled_kernel: whether the kernel quantizer gives -s and +s with one s per filter, which then multiplies behind
            the accumulator's quantizer; needs an accumulator_quantizer.
        scale_fraction_bits: fraction bits of s, an integer or one per filter; None for float. See `quantize_scale`.
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
