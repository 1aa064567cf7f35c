"""What the binary layers of `larq_clip.layers` share: the quantizer of the accumulator, and what multiplies it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from larq_clip import fixed_point
from larq_clip._keras import keras, lq, tf
from larq_clip._scope import quantized_scope
from larq_clip.quantizers import (
    EXACT_DTYPES,
    AccumulatorClip,
    compute_exactly,
    require_exact_dtype,
    saturating_round,
)

FLOAT32_BITS = 24  # of an integer that float32 holds
INPUT_LEVELS = (1, 3, 7)  # those of 1, 2 and 3 bits


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


def _whole_levels(inputs: tf.Tensor, levels: int) -> tf.Tensor:
    """m of inputs m / levels, exactly; the gradient is that of the multiplication."""

    @tf.custom_gradient
    def _call(x):
        return tf.round(x * levels), lambda dy: levels * dy

    return _call(inputs)


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


class AccumulatorQuantizer(keras.layers.Layer):
    """What both layers share: the arguments, their checks, their config, what multiplies the accumulator."""

    def __init__(
        self,
        *args,
        accumulator_quantizer=None,
        scaled_kernel: bool = False,
        scale_fraction_bits: int | Sequence[int] | None = None,
        input_levels: int | None = None,
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
        if input_levels is not None and input_levels not in INPUT_LEVELS:
            raise ValueError(
                f"input_levels is {input_levels!r}; accepted are {', '.join(map(str, INPUT_LEVELS))} (inputs m / n of "
                "1, 2 and 3 bits) and None (-1 and +1)"
            )
        has_scale = scaled_kernel or (input_levels or 1) > 1
        wrong = (scaled_kernel or input_levels) and accumulator_quantizer is None
        if wrong or (scale_fraction_bits is not None and not has_scale):
            raise ValueError(
                f"{type(self).__name__} '{self.name}' was given accumulator_quantizer={accumulator_quantizer!r}, "
                f"scaled_kernel={scaled_kernel!r}, input_levels={input_levels!r} and "
                f"scale_fraction_bits={scale_fraction_bits!r}; the second and third need the first, the fourth the "
                "second, or more levels than 1"
            )
        self.input_levels = None if input_levels is None else int(input_levels)
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
        pad_value = np.asarray(getattr(self, "pad_values", 0.0))
        if self.input_levels is not None and not np.all((pad_value == 0) | (pad_value == 1)):
            raise ValueError(
                f"{type(self).__name__} '{self.name}' has input_levels={self.input_levels} and pad_values {pad_value}; "
                "accepted are 0 and 1, which are levels too"
            )
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
        with quantized_scope():  # a layer that raises in training must not leave Larq's own scope on
            return super().call(inputs)

    def _quantize_accumulator(self, accumulator: tf.Tensor) -> tf.Tensor:
        return accumulator if self.accumulator_quantizer is None else self.accumulator_quantizer(accumulator)

    def _binary_product(self, product: Callable[[Any, Any], tf.Tensor], inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """The quantized accumulator, times what a unit of it counts."""
        if self.input_levels is not None:
            inputs = _whole_levels(inputs, self.input_levels)
        if not self.has_scale:
            return self._quantize_accumulator(product(inputs, kernel))
        kernel = tf.convert_to_tensor(kernel)
        scale = self._kernel_scale(kernel) if self.scaled_kernel else tf.ones((kernel.shape[-1],), kernel.dtype)
        if self.scaled_kernel:
            # |kernel| is s, so the quotient is exactly -1 or +1; where s is 0, so are all products.
            kernel = kernel / tf.where(scale > 0, scale, tf.ones_like(scale))
        # A product and not a quotient, which compilers replace by one.
        scale = tf.reshape(scale, [-1]) * tf.constant(self._level_size, scale.dtype)
        if self.scale_fraction_bits is not None:
            steps = tf.constant(np.ldexp(1.0, -np.asarray(self.scale_fraction_bits)), scale.dtype)
            scale = saturating_round(scale, self._multiplier_bits, steps)
        return scale * self._quantize_accumulator(product(inputs, kernel))

    @staticmethod
    def _kernel_scale(kernel: tf.Tensor) -> tf.Tensor:
        """s per filter, broadcast against the kernel; the kernel quantizer's gradient has what s depends on."""
        axes = list(range(kernel.shape.rank - 1))
        return tf.stop_gradient(tf.reduce_max(tf.abs(kernel), axis=axes, keepdims=True))

    @property
    def has_scale(self) -> bool:
        """Whether a unit of the accumulator counts as something else than 1: s, 1 / n or s / n."""
        return self.scaled_kernel or (self.input_levels or 1) > 1

    @property
    def _level_size(self) -> np.float32:
        """1 / n in float32."""
        return np.float32(1) / np.float32(self.input_levels or 1)

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
        with quantized_scope(True):
            kernel = tf.convert_to_tensor(self.kernel)
        scale = self._kernel_scale(kernel).numpy()
        if not np.all(np.abs(kernel.numpy()) == scale):
            raise ValueError(f"the kernel_quantizer of layer '{self.name}' does not give -s and +s, one s per filter")
        return scale.reshape(-1)

    def accumulator_scale(self) -> np.ndarray:
        """What a unit of the accumulator counts, ``(filters,)`` float32: s times 1 / n, each rounded to float32.

        s is 1 where the kernel is not scaled, and n where the inputs are signs. Not on the grid of `quantize_scale`.

        Raises:
            ValueError: as `kernel_scale`, of a scaled kernel; where the layer is not built.
        """
        if not self.built:
            raise ValueError(f"layer '{self.name}' is not built; build the model, or call it on a batch, first")
        scale = self.kernel_scale() if self.scaled_kernel else np.ones(int(self.kernel.shape[-1]), np.float32)
        return scale * self._level_size

    def quantize_scale(self, fraction_bits: int | Sequence[int] | None = None) -> None:
        r"""Compute with s, or s / n, on a grid from now on; functions traced already do not follow.

        \\[ s_q = \\mathrm{sat}_{16} \\lfloor 2^F s + 1/2 \\rfloor \\]

        Args:
            fraction_bits: F, an integer or one per filter; if None, the largest per filter that hold the present s, so
                that each is exact to 15 bits; one less, that training may double it.

        Raises:
            ValueError: as `accumulator_scale`; for other values; where the accumulator has no `AccumulatorClip`, or
                the layer no scale.
        """
        if not isinstance(self.accumulator_quantizer, AccumulatorClip):
            raise ValueError(f"layer '{self.name}' has no AccumulatorClip, so its accumulator has no width")
        if not self.has_scale:
            raise ValueError(f"layer '{self.name}' has neither a scaled_kernel nor several input_levels, so no scale")
        scale = self.accumulator_scale().astype(np.float64)
        if fraction_bits is None:
            exponent = fixed_point.ceil_log2(np.where(scale == 0, 1.0, scale))
            highest = fixed_point.LARGEST_FRACTION_BITS
            fraction_bits = np.clip(self._multiplier_bits - 2 - exponent, -highest, highest).tolist()
        checked = fixed_point.as_fraction_bits(fraction_bits, "scale_fraction_bits")
        if isinstance(checked, list) and len(checked) != scale.size:
            raise ValueError(f"scale_fraction_bits has {len(checked)} elements; '{self.name}' has {scale.size} filters")
        self.scale_fraction_bits = checked

    def scale_integers(self) -> np.ndarray:
        """s_q ``(filters,)``, int32: s, or s / n, on the grid is s_q 2^-scale_fraction_bits.

        Raises:
            ValueError: as `accumulator_scale`, and where the scale is not quantized.
        """
        if self.scale_fraction_bits is None:
            raise ValueError(
                f"the scale of layer '{self.name}' is not quantized; call its method quantize_scale() first"
            )
        bits = np.asarray(self.scale_fraction_bits, np.int64)
        return fixed_point.store_reals(self.accumulator_scale(), bits, self._multiplier_bits)

    def get_config(self):
        return {
            **super().get_config(),
            "accumulator_quantizer": lq.quantizers.serialize(self.accumulator_quantizer),
            "scaled_kernel": self.scaled_kernel,
            "scale_fraction_bits": self.scale_fraction_bits,
            "input_levels": self.input_levels,
        }


__all__ = ["INPUT_LEVELS", "AccumulatorQuantizer"]
