"""Constraints, after Larq's idioms: projections that an optimizer applies to a variable after each of its steps.

A constraint sees one variable. What keeps thresholds within the clipped range involves four (beta, gamma and both
statistics of a batch norm), so it is a callback: `larq_clip.callbacks.ThresholdRange`.

Strings are accepted wherever Keras takes a constraint: "fixed_point_constraint". ("fixed_point" and "FixedPoint" are
the quantizer: Keras keeps one list of names for both. So the class has a longer name than it has here.)
Like every string, it is known once this module has been imported.
"""

from __future__ import annotations

from larq_clip import arithmetic
from larq_clip._keras import keras, tf
from larq_clip.quantizers import (
    LARGEST_BITS,
    LARGEST_EXPONENT,
    SMALLEST_BITS,
    _integer_within,
    _register,
    saturating_round,
)


@_register("fixed_point_constraint")
class FixedPointConstraint(keras.constraints.Constraint):
    r"""Projects a variable on fixed point: `bits` bits, `fraction_bits` of them after the point.

    \\[ w \leftarrow 2^{-f} \cdot \mathrm{clip}(\lfloor w \cdot 2^f + 1/2 \rfloor, \pm (2^{b-1} - 1)) \\]

    with b = `bits` and f = `fraction_bits`: the function of `larq_clip.quantizers.FixedPoint`, rounding half up, exact
    for every float32. So the variable itself holds, after each step of the optimizer, what the device is going to.

    The two differ in what is remembered. A quantizer leaves the latent variable as it is and rounds where it is used,
    so small updates add up; this constraint rounds the variable, so an update of less than half of 2^-f is lost. Use
    the quantizer to train kernels on a coarse grid, and the constraint for variables that no quantizer reaches (biases,
    gamma and beta of a batch norm), on a grid that is fine against the updates: with learning rate 0.01 and Adam, say,
    10 fraction bits or more.

    !!! example
        ```python
        norm = tf.keras.layers.BatchNormalization(
            beta_constraint=larq_clip.constraints.FixedPoint(bits=16, fraction_bits=10)
        )
        ```

    # Arguments
        bits: width in bits, 2 to 16.
        fraction_bits: bits after the point, 0 to 24; there may be more than `bits`.

    # Raises
        ValueError: for other values.
    """

    def __init__(self, bits: int = 8, fraction_bits: int = 7):
        self.bits = _integer_within("bits", bits, SMALLEST_BITS, LARGEST_BITS)
        self.fraction_bits = _integer_within("fraction_bits", fraction_bits, 0, LARGEST_EXPONENT)

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        return saturating_round(tf.convert_to_tensor(w), self.bits, 2.0**-self.fraction_bits)

    @property
    def largest(self) -> float:
        """The largest value that the variable can have."""
        return arithmetic.clip_limit(self.bits) * 2.0**-self.fraction_bits

    def get_config(self):
        return {"bits": self.bits, "fraction_bits": self.fraction_bits}


FixedPoint = FixedPointConstraint

__all__ = ["FixedPoint"]
