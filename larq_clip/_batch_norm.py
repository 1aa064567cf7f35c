"""`FixedPointBatchNormalization`; public as `larq_clip.layers.FixedPointBatchNormalization`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from larq_clip import fixed_point
from larq_clip._keras import keras, tf
from larq_clip.fixed_point import AffineFormat, BatchNorm
from larq_clip.quantizers import PACKAGE, compute_exactly, saturating_round


def _integer_or_none(name: str, value: Any) -> int | None:
    highest = fixed_point.MULTIPLIER_BITS - 1
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value <= highest:
        raise ValueError(f"{name} is {value!r}; accepted are the integers from 0 to {highest}, and None")
    return int(value)


def _checked_fraction_bits(value: Any) -> int | list[int] | None:
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value):
        bits = fixed_point.as_fraction_bits(list(value))
        assert isinstance(bits, list)
        return bits
    return _integer_or_none("fraction_bits", value)


def require_statistics_of(norm: keras.layers.BatchNormalization, path: str) -> None:
    """Refuse a batch norm, of this path in its model, that was never trained or whose variables are no numbers."""
    mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    if not np.any(mean) and np.all(variance == 1):
        raise ValueError(
            f"batch norm '{path}' has no statistics: its moving mean is 0 and its moving variance 1 in all channels, "
            "as created; train the model, or load its weights, before you quantize"
        )
    if not all(np.all(np.isfinite(w)) for w in norm.get_weights()) or np.any(variance < 0):
        raise ValueError(f"batch norm '{path}' has variables that are not finite, or a negative variance")


@tf.custom_gradient
def _rounded_product(mean: tf.Tensor, s: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """mean s, rounded to float64, for a mean that is a float32.

    XLA would fuse the product and the difference that follows, without the rounding in between that NumPy does. Here
    the products of mean with the upper 26 and the lower 27 bits of s are exact, so that fusing changes nothing.
    """

    def grad(dy):
        return dy * s, dy * mean

    upper = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(s, tf.int64), -(2**27)), tf.float64)
    return mean * upper + mean * (s - upper), grad


@keras.utils.register_keras_serializable(PACKAGE)
class FixedPointBatchNormalization(keras.layers.BatchNormalization):
    r"""Batch norm that becomes one multiplication and one addition of integers.

    Its variables are those of `keras.layers.BatchNormalization` in the same order, so weights load from and into one.
    As long as it is not quantized it computes what that computes (not fused). `quantize` switches to

    \\[ y = 2^{-F} (s_q x + t_q), \quad s_q = \mathrm{sat}_{16} \lfloor 2^F s + 1/2 \rfloor,
    \quad t_q = \mathrm{sat}_{32} \lfloor 2^F t + 1/2 \rfloor \\]

    with s = gamma / sqrt(variance + epsilon), t = beta - mean s and F = `fraction_bits`, one for the layer as in
    Algorithm 2, or one per channel, which costs a shift per channel and keeps small s exact to 15 bits. Nothing is
    rounded after that, so y is exact for every x that is an integer times a power of two: a clipped accumulator, a
    stored tensor, an exact sum of such. With variables="paper" gamma, beta, mean and sigma are put on the grid of
    `variable_fraction_bits` first, as Algorithm 2 prints it, and s and t are the exact quotients of what results. The
    integers are those of `larq_clip.fixed_point.quantize_batch_norm`.

    A product of 16 and 32 bits does not fit the 24 bits of float32, so the output is always float64, whose 53 bits hold
    it; what follows and needs a sign only may cast it down. Inputs are not cast: accumulators are exact in float32.

    In inference, and with ``trainable=False`` (the frozen state of Algorithm 2) also in training, mean and variance are
    the moving ones. In training they are those of the batch, the moving ones are updated, and s and t are rounded as
    above. The gradient takes rounding as the identity:

    \\[ \frac{\partial y}{\partial x} = 2^{-F} s_q, \quad
    \frac{\partial y}{\partial s} = x \, [|s| \leq 2^{-F} (2^{15} - 1)], \quad
    \frac{\partial y}{\partial t} = [|t| \leq 2^{-F} (2^{31} - 1)] \\]

    and goes on through s and t to gamma, beta and, in training, to the batch's mean and variance.

    `quantize` and `trainable` are Python state, as `trainable` is in all of Keras: what is traced already, the train
    function of a compiled model, does not follow; compile again, or ``model.make_train_function(force=True)``.

    # Arguments
        variables: what is quantized: "folded" (s and t) or "paper" (gamma, beta, mean and sigma first).
        fraction_bits: F, 0 to 15, or a list of one per channel, each within ±24; None while not quantized.
        variable_fraction_bits: 0 to 15, with variables="paper" and fraction_bits only.
        others: as in `keras.layers.BatchNormalization`, with one axis; neither renorm nor virtual batches.

    # Output shape
        As the input's; float64.

    # Raises
        ValueError: for other values.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3.2, Fig. 3 and Algorithm 2.
    """

    def __init__(
        self,
        *args,
        variables: str = "folded",
        fraction_bits: int | Sequence[int] | None = None,
        variable_fraction_bits: int | None = None,
        **kwargs,
    ):
        super().__init__(*args, **{**kwargs, "autocast": False})
        compute_exactly(self)
        if variables not in fixed_point.VARIABLES:
            raise ValueError(f"variables is {variables!r}; accepted are {list(fixed_point.VARIABLES)}")
        if self.renorm or self.virtual_batch_size is not None or np.size(self.axis) != 1:
            raise ValueError(
                f"{type(self).__name__} '{self.name}' was given renorm={self.renorm}, "
                f"virtual_batch_size={self.virtual_batch_size} and axis={self.axis}; accepted are renorm=False, "
                "virtual_batch_size=None and one axis"
            )
        self.fused = False
        self.quantized_variables = variables
        self._set_format(fraction_bits, variable_fraction_bits)

    def _set_format(self, fraction_bits: Any, variable_fraction_bits: Any) -> None:
        own = _integer_or_none("variable_fraction_bits", variable_fraction_bits)
        bits = _checked_fraction_bits(fraction_bits)
        if isinstance(bits, list) and self.quantized_variables == "paper":
            raise ValueError(
                f"{type(self).__name__} '{self.name}' was given fraction bits per channel with variables='paper'; "
                "accepted with that is one integer"
            )
        if (own is not None) != (bits is not None and self.quantized_variables == "paper"):
            raise ValueError(
                f"{type(self).__name__} '{self.name}' was given fraction_bits={bits} and variable_fraction_bits={own} "
                f"with variables={self.quantized_variables!r}; the second belongs to 'paper', and there to the first"
            )
        self.fraction_bits, self.variable_fraction_bits = bits, own

    @property
    def quantized(self) -> bool:
        """Whether the layer computes in fixed point."""
        return self.fraction_bits is not None

    @property
    def format(self) -> AffineFormat | None:
        """The format, None while not quantized."""
        return None if self.fraction_bits is None else AffineFormat(self.fraction_bits, self.variable_fraction_bits)

    def quantize(self, chosen: AffineFormat | None = None, granularity: str = "layer") -> AffineFormat:
        """Compute in fixed point from now on, in this format; if None, in the one that the variables ask for.

        Args:
            chosen: format, or None.
            granularity: where None: "layer", one format as in Algorithm 2, or "channel"; see
                `larq_clip.fixed_point.choose_format`.

        Returns:
            The format.

        Raises:
            ValueError: where the layer is not built, its variables are not finite, or the format is not one.
        """
        norm = self.batch_norm()
        if chosen is None:
            chosen = fixed_point.choose_format(norm, self.quantized_variables, granularity)
        if np.ndim(chosen.fraction_bits) and np.size(chosen.fraction_bits) != norm.mean.size:
            raise ValueError(
                f"batch norm '{self.name}' was given {np.size(chosen.fraction_bits)} fraction bits; accepted are one "
                f"integer and a list of {norm.mean.size}"
            )
        self._set_format(*chosen)
        return chosen

    def dequantize(self) -> None:
        """Be a float batch norm again."""
        self._set_format(None, None)

    def batch_norm(self) -> BatchNorm:
        """The variables as `larq_clip.fixed_point` takes them.

        Raises:
            ValueError: where the layer is not built, or a variable is not finite or a variance negative.
        """
        if not self.built:
            raise ValueError(f"batch norm '{self.name}' is not built; build the model, or call it on a batch, first")
        mean, variance = self.moving_mean.numpy(), self.moving_variance.numpy()
        gamma = self.gamma.numpy() if self.scale else np.ones_like(mean)
        beta = self.beta.numpy() if self.center else np.zeros_like(mean)
        for name, value in zip(("gamma", "beta", "moving mean", "moving variance"), (gamma, beta, mean, variance)):
            if not np.all(np.isfinite(value)):
                raise ValueError(f"batch norm '{self.name}' has a {name} that is not finite (NaN or infinity)")
        if np.any(variance < 0):
            raise ValueError(f"batch norm '{self.name}' has a negative moving variance")
        return BatchNorm(gamma, beta, mean, variance, self.epsilon)

    def integers(self) -> fixed_point.FixedPointAffine:
        """s_q, t_q and F of inference.

        Raises:
            ValueError: where the layer is not quantized.
        """
        if self.format is None:
            raise ValueError(f"batch norm '{self.name}' is not quantized; call its method quantize() first")
        return fixed_point.quantize_batch_norm(self.batch_norm(), self.format)

    def call(self, inputs, mask=None, training=None):
        chosen = self.format
        if chosen is None:
            inputs = tf.cast(inputs, self._param_dtype)
            extra = {} if mask is None else {"mask": mask}
            return tf.cast(super().call(inputs, training=training, **extra), tf.float64)
        if mask is not None:
            raise ValueError(
                f"{type(self).__name__} '{self.name}' was given a mask, which it cannot use once quantized"
            )
        training = self._get_training_value(training)
        if tf.is_tensor(training):
            mean, variance = tf.cond(
                tf.cast(training, tf.bool), lambda: self._batch_statistics(inputs), self._moving_statistics
            )
        else:
            mean, variance = self._batch_statistics(inputs) if training else self._moving_statistics()
        s, t = self._quantized_affine(mean, variance, chosen)
        (axis,) = self.axis  # Keras makes a list of it when building
        shape = [1] * inputs.shape.rank
        shape[axis] = -1
        return tf.reshape(s, shape) * tf.cast(inputs, tf.float64) + tf.reshape(t, shape)

    def _moving_statistics(self) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)

    def _batch_statistics(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of the batch; updates the moving ones, both as Keras does."""
        others = [axis for axis in range(inputs.shape.rank) if axis not in self.axis]
        mean, variance = self._moments(tf.cast(inputs, self._param_dtype), others, keep_dims=False)
        size = tf.shape(inputs)[0] if self._support_zero_size_input() else None
        self._assign_moving_average(self.moving_mean, mean, self.momentum, size)
        self._assign_moving_average(self.moving_variance, variance, self.momentum, size)
        return mean, variance

    def _quantized_affine(
        self, mean: tf.Tensor, variance: tf.Tensor, chosen: AffineFormat
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """s and t in float64, on their grids. Each step of float64 rounds as NumPy's does."""
        wide = fixed_point.MULTIPLIER_BITS
        mean = tf.cast(mean, tf.float64)
        sigma = tf.sqrt(tf.cast(variance, tf.float64) + tf.constant(self.epsilon, tf.float64))
        gamma = tf.cast(self.gamma, tf.float64) if self.scale else tf.ones_like(mean)
        beta = tf.cast(self.beta, tf.float64) if self.center else tf.zeros_like(mean)
        if chosen.variable_fraction_bits is None:
            s = gamma / sigma
            product = _rounded_product(mean, s) if self.variable_dtype == "float32" else mean * s
            t = beta - product
        else:
            unit = 2.0**-chosen.variable_fraction_bits
            gamma, beta, mean, sigma = (saturating_round(v, wide, unit) for v in (gamma, beta, mean, sigma))
            sigma = tf.maximum(sigma, unit)
            s = gamma / sigma
            # The products are exact; one rounding, too small to reach the next tie.
            t = (beta * sigma - mean * gamma) / sigma
        unit = tf.constant(np.ldexp(1.0, -np.asarray(chosen.fraction_bits)), tf.float64)
        return saturating_round(s, wide, unit), saturating_round(t, fixed_point.OFFSET_BITS, unit)

    def get_config(self):
        return {
            **super().get_config(),
            "synchronized": self.synchronized,
            "variables": self.quantized_variables,
            "fraction_bits": self.fraction_bits,
            "variable_fraction_bits": self.variable_fraction_bits,
        }


__all__ = ["FixedPointBatchNormalization", "require_statistics_of"]
