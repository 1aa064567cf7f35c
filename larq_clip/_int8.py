"""int8 versions of the layers that are not binary; public in `larq_clip.layers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from larq_clip import arithmetic, fixed_point
from larq_clip._keras import keras, tf
from larq_clip._storage import Format, grid_steps
from larq_clip.quantizers import PACKAGE, compute_exactly, require_exact_dtype, saturating_round


class _Int8(keras.layers.Layer):
    """What all of them share: formats, config, quantized input, kernel and bias."""

    KERNEL = "kernel"

    def __init__(
        self, *args, input_fraction_bits: Format = None, kernel_steps: Sequence[float] | None = None, **kwargs
    ):
        super().__init__(*args, **{**kwargs, "autocast": False})
        compute_exactly(self)
        if (input_fraction_bits is None) != (kernel_steps is None):
            raise ValueError(
                f"{type(self).__name__} '{self.name}' was given input_fraction_bits={input_fraction_bits!r} and "
                f"kernel_steps={kernel_steps!r}; give both or none"
            )
        self.input_fraction_bits: int | list[int] | None = None
        self.kernel_steps: list[float] | None = None
        if input_fraction_bits is not None:
            self._set_formats(input_fraction_bits, kernel_steps)

    def _set_formats(self, input_fraction_bits: Any, kernel_steps: Any) -> None:
        bits = fixed_point.as_fraction_bits(input_fraction_bits, "input_fraction_bits")
        steps = np.asarray(kernel_steps, np.float64).ravel()
        fixed_point.split_steps(steps)  # refuse what is no step
        self.input_fraction_bits, self.kernel_steps = bits, steps.tolist()

    def build(self, input_shape):
        require_exact_dtype(self.compute_dtype, f"{type(self).__name__} '{self.name}'")
        if getattr(self, "data_format", "channels_last") != "channels_last":
            raise ValueError(f"{type(self).__name__} '{self.name}' has data_format='channels_first'; accepted is NHWC")
        super().build(input_shape)

    @property
    def quantized(self) -> bool:
        """Whether the layer computes in integers."""
        return self.kernel_steps is not None

    def quantize(self, input_fraction_bits: int | Sequence[int], kernel_steps: Sequence[float] | None = None) -> None:
        """Compute in integers from now on; functions traced already do not follow.

        Args:
            input_fraction_bits: of the int8 input: an integer, or one per channel.
            kernel_steps: one per output channel, m 2^-k with integers m < 256; if None, the smallest that hold the
                present kernel.

        Raises:
            ValueError: where the layer is not built, a format is none, or an accumulator might not fit int32.
        """
        if not self.built:
            raise ValueError(f"layer '{self.name}' is not built; build the model, or call it on a batch, first")
        kernel = getattr(self, self.KERNEL).numpy()
        products = int(np.prod(kernel.shape)) // self._steps_shape(kernel.shape)[1]
        if products * arithmetic.clip_limit(8) ** 2 > arithmetic.clip_limit(32):
            raise ValueError(f"layer '{self.name}' sums {products} products of int8, which may not fit int32")
        if kernel_steps is None:
            scaled = np.abs(kernel.astype(np.float64) * self._input_steps(kernel.shape, input_fraction_bits))
            largest = scaled.max(
                axis=tuple(a for a in range(scaled.ndim) if self._steps_shape(kernel.shape)[0][a] == 1)
            )
            kernel_steps = fixed_point.kernel_steps(largest).ravel().tolist()
        elif len(kernel_steps) != self._steps_shape(kernel.shape)[1]:
            raise ValueError(
                f"kernel_steps of layer '{self.name}' has {len(kernel_steps)} steps; accepted are "
                f"{self._steps_shape(kernel.shape)[1]}, one per output channel"
            )
        self._set_formats(input_fraction_bits, kernel_steps)

    def dequantize(self) -> None:
        """Be a float layer again."""
        self.input_fraction_bits = self.kernel_steps = None

    def _steps_shape(self, kernel_shape: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """Shape of the steps that broadcasts against the kernel, and the number of output channels."""
        return (*[1] * (len(kernel_shape) - 1), kernel_shape[-1]), kernel_shape[-1]

    def _input_steps(self, kernel_shape: Sequence[int], input_fraction_bits: Format) -> np.ndarray:
        """2^-f of the input channel that each element of the kernel multiplies, broadcast against the kernel."""
        groups = getattr(self, "groups", 1)
        inputs, outputs = kernel_shape[-2:]
        steps = grid_steps(input_fraction_bits, inputs * groups, f"layer '{self.name}'")
        if not steps.ndim:
            return steps
        return np.repeat(steps.reshape(groups, inputs).T, outputs // groups, axis=1)

    def integers(self) -> tuple[fixed_point.Int8Kernel, np.ndarray | None]:
        """int8 weights in the layout of the Keras kernel, and the int32 bias, None without one.

        Raises:
            ValueError: where the layer is not quantized.
        """
        if not self.quantized:
            raise ValueError(f"layer '{self.name}' is not quantized; call its method quantize() first")
        kernel = getattr(self, self.KERNEL).numpy().astype(np.float64)
        steps = np.array(self.kernel_steps).reshape(self._steps_shape(kernel.shape)[0])
        scaled = kernel * self._input_steps(kernel.shape, self.input_fraction_bits)
        bias = fixed_point.quantize_bias(self.bias.numpy(), steps.ravel()) if self.use_bias else None
        return fixed_point.quantize_kernel(scaled, steps), bias

    def call(self, inputs):
        if not self.quantized:
            return tf.cast(super().call(tf.cast(inputs, self.compute_dtype)), tf.float64)
        kernel = tf.cast(getattr(self, self.KERNEL), tf.float64)
        channels = self._input_steps(kernel.shape, self.input_fraction_bits)
        steps = tf.constant(np.array(self.kernel_steps).reshape(self._steps_shape(kernel.shape)[0]), tf.float64)
        input_steps = grid_steps(self.input_fraction_bits, inputs.shape[-1], f"layer '{self.name}'")
        inputs = saturating_round(tf.cast(inputs, tf.float64), 8, tf.constant(input_steps, tf.float64))
        # The integers times powers of two: every product and sum is exact in float64.
        outputs = self._product(inputs, saturating_round(kernel * channels, 8, steps, power_of_two=False) / channels)
        if self.use_bias:
            bias = tf.cast(self.bias, tf.float64)
            outputs += saturating_round(bias, fixed_point.OFFSET_BITS, tf.reshape(steps, [-1]), power_of_two=False)
        return outputs if self.activation is None else self.activation(outputs)

    def _product(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError

    def get_config(self):
        return {
            **super().get_config(),
            "input_fraction_bits": self.input_fraction_bits,
            "kernel_steps": self.kernel_steps,
        }


@keras.utils.register_keras_serializable(PACKAGE)
class Int8Conv2D(_Int8, keras.layers.Conv2D):
    r"""Convolution of int8 inputs with int8 weights, for the first layer and 1x1 shortcuts.

    \\[ y = m_c 2^{-k_c} \left( \sum_i w_{q,i} x_{q,i} + b_q \right) \\]

    exactly: input and kernel are rounded half up to ±127 each, x = 2^-f x_q with f = `input_fraction_bits`, the bias to
    int32 in units of the accumulator, and nothing after that; whatever stores y rounds it once. The factors 2^-f, where
    they differ by channel, are multiplied into the kernel before it is quantized: 2^-f_i w = step_c w_q. A step is
    m_c 2^-k_c with an integer m_c < 256, so the multiplier of the integer program is exact too, also when a
    `FixedPointBatchNormalization` behind it multiplies its own 16 bits into it. The integers are those of
    `larq_clip.fixed_point.int8_conv2d`.

    The variables are those of the Keras layer, trained with rounding taken as the identity: the gradient is 1 inside of
    ±127 steps, 0 beyond. While not quantized it computes what the Keras layer computes. The output is always float64,
    since 32 bits and more do not fit float32; inputs are not cast.

    # Arguments
        input_fraction_bits: fraction bits of the int8 input, an integer or a list of one per channel; None while not
            quantized.
        kernel_steps: one per output channel; None while not quantized. See `quantize`.
        others: as in the Keras layer; channels last. Activations other than relu are computed in float64.

    # Output shape
        As the Keras layer's; float64.

    # Raises
        ValueError: for other values; when built channels first, or with variables in float16 or bfloat16.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3, where these layers stay float.
    """

    def _product(self, inputs, kernel):
        product = self._jit_compiled_convolution_op if self.groups > 1 else self.convolution_op
        return product(inputs, kernel)


@keras.utils.register_keras_serializable(PACKAGE)
class Int8DepthwiseConv2D(_Int8, keras.layers.DepthwiseConv2D):
    """Depthwise convolution of int8 inputs with int8 weights; everything else is as in `Int8Conv2D`."""

    KERNEL = "depthwise_kernel"

    def _steps_shape(self, kernel_shape):
        return (1, 1, *kernel_shape[2:]), kernel_shape[2] * kernel_shape[3]

    def _input_steps(self, kernel_shape, input_fraction_bits):
        steps = grid_steps(input_fraction_bits, kernel_shape[2], f"layer '{self.name}'")
        return steps[:, None] if steps.ndim else steps

    def _product(self, inputs, kernel):
        return keras.backend.depthwise_conv2d(
            inputs, kernel, self.strides, self.padding, self.data_format, self.dilation_rate
        )


@keras.utils.register_keras_serializable(PACKAGE)
class Int8Dense(_Int8, keras.layers.Dense):
    """Dense layer of int8 inputs with int8 weights, for the classifier; everything else is as in `Int8Conv2D`."""

    def _product(self, inputs, kernel):
        return tf.tensordot(inputs, kernel, axes=1) if inputs.shape.rank != 2 else tf.matmul(inputs, kernel)


__all__ = ["Int8Conv2D", "Int8Dense", "Int8DepthwiseConv2D"]
