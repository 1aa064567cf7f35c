"""Quantizers, after Larq's idioms: of accumulators (`AccumulatorClip`) and of full-precision kernels (`FixedPoint`).

Both put numbers on a symmetric grid of 2^bits - 1 points, a power of two apart, so everything they return is exact in
float32. Strings are accepted wherever Larq takes a quantizer: "accumulator_clip", "fixed_point".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from larq_clip import arithmetic
from larq_clip._keras import keras, lq, tf

PACKAGE = "LarqClip"
SMALLEST_BITS, LARGEST_BITS = 2, 16
LARGEST_EXPONENT = 24
EXACT_DTYPES = ("float32", "float64")


def _register(alias: str):
    """Class decorator: serializable as "LarqClip>Name", and known to `larq.quantizers.get` as "Name" and as `alias`."""

    def register(cls):
        cls = keras.utils.register_keras_serializable(PACKAGE)(cls)
        return lq.utils.register_alias(alias)(lq.utils.register_keras_custom_object(cls))

    return register


def _integer_within(name: str, value: Any, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not lowest <= value <= highest:
        raise ValueError(f"{name} is {value!r}; accepted are the integers from {lowest} to {highest}")
    return int(value)


def _power_of_two(step: Any) -> int | float:
    """The step as an int where it is one, so that configs read well."""
    accepted = f"accepted are the powers of two from 2**-{LARGEST_EXPONENT} to 2**{LARGEST_EXPONENT}"
    if isinstance(step, bool) or not isinstance(step, (int, float, np.integer, np.floating)):
        raise ValueError(f"step is {step!r}; {accepted}")
    exponent = arithmetic.step_exponent(float(step))
    if abs(exponent) > LARGEST_EXPONENT:
        raise ValueError(f"step is {step!r}; {accepted}")
    return 2**exponent if exponent >= 0 else 2.0**exponent


def require_exact_dtype(dtype: Any, owner: str) -> None:
    """Refuse dtypes in which an accumulator is not an exact integer: float16 ends at 2048, bfloat16 at 256.

    Raises:
        ValueError: for anything but float32 and float64; `owner` says whose dtype it is.
    """
    name = tf.as_dtype(dtype).name
    if name not in EXACT_DTYPES:
        raise ValueError(
            f"{owner} computes in {name}, in which an accumulator is not exact; accepted are "
            f"{' and '.join(EXACT_DTYPES)}, and for layers mixed-precision policies, under which they compute in the "
            "dtype of their variables. Build the layer with dtype='float32'"
        )


def compute_exactly(layer: keras.layers.Layer) -> None:
    """Under a mixed-precision policy, let a layer compute in the dtype of its variables: float32.

    Under the policies "float16" and "bfloat16" its variables are too narrow themselves; `require_exact_dtype` refuses.
    """
    if layer.compute_dtype not in EXACT_DTYPES and layer.variable_dtype in EXACT_DTYPES:
        layer._set_dtype_policy(layer.variable_dtype)


def round_half_up(x: tf.Tensor) -> tf.Tensor:
    """floor(x + 1/2), exact for every float.

    Adding 1/2 in floating point rounds: 0.49999997 + 0.5 is 1. The distance to the floor is exact where it matters.
    """
    lower = tf.floor(x)
    return lower + tf.cast(x - lower >= 0.5, x.dtype)


def round_quotient(x: tf.Tensor, step: tf.Tensor, limit: int) -> tf.Tensor:
    """floor(x / step + 1/2) saturated to +-`limit`, in float64, where x has 24 bits at most and the step 8.

    XLA multiplies by the rounded reciprocal of a constant instead of dividing. That can be an integer off at a tie
    where the step is no power of two; products of steps and half integers are exact, and tell.
    """
    quotient = tf.clip_by_value(round_half_up(x / step), -limit, limit)
    above = tf.cast((quotient + 0.5) * step <= x, x.dtype)
    below = tf.cast((quotient - 0.5) * step > x, x.dtype)
    return tf.clip_by_value(quotient + above - below, -limit, limit)


def saturating_round(x: tf.Tensor, bits: int, step: float, power_of_two: bool = True) -> tf.Tensor:
    r"""Put x on the symmetric grid of `bits` bits.

    \\[ q(x) = s \cdot \mathrm{clip}(\lfloor x / s + 1/2 \rfloor, \pm (2^{b-1} - 1)) \\]

    The gradient is 1 for |x| <= s (2^(b-1) - 1), the largest point of the grid, and 0 beyond. Steps that are not powers
    of two are those of `round_quotient`.
    """
    limit = arithmetic.clip_limit(bits)

    @tf.custom_gradient
    def _call(x):
        def grad(dy):
            return tf.where(tf.abs(x) <= limit * step, dy, tf.zeros_like(dy))

        if not power_of_two:
            return step * round_quotient(x, step, limit), grad
        return step * tf.clip_by_value(round_half_up(x / step), -limit, limit), grad

    return _call(x)


class _ClipState:
    """The switch of an `AccumulatorClip` and its two counters.

    A plain object, since Keras tracks every variable that it sees on a layer as a weight of the model; then h5 weights
    of the unclipped model would no longer fit. Variables and not Python values, since functions traced already must see
    a change.
    """

    NAMES = ("switch", "outside", "total")
    CHILDREN = tuple(f"clip_{name}" for name in NAMES)

    def __init__(self, enabled: bool):
        self.switch = tf.Variable(enabled, trainable=False, dtype=tf.bool, name="accumulator_clip/switch")
        self.outside, self.total = (
            tf.Variable(
                0,
                trainable=False,
                dtype=tf.int64,
                name=f"accumulator_clip/{name}",
                # Under a strategy each replica counts on its own; what is read is the sum over all.
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for name in self.NAMES[1:]
        )

    def variables(self) -> dict[str, tf.Variable]:
        return {child: getattr(self, name) for child, name in zip(self.CHILDREN, self.NAMES)}


@_register("accumulator_clip")
class AccumulatorClip(lq.quantizers.Quantizer):
    r"""Saturates the accumulator a of a binary layer to `bits` bits.

    \\[ c = s \cdot \mathrm{clip}(\lfloor a / s + 1/2 \rfloor, \pm (2^{b-1} - 1)) \\]

    with b = `bits` and s = `step`. step = 1 is the paper's clip. A larger step trades low bits for range; step = 2
    loses nothing where every accumulator is even, which is so where the number of taps is. Rounding is half up, what a
    rounding shift does; saturation happens once, on the finished sum. The same integers as
    `larq_clip.arithmetic.clip_accumulator`, times s, exact in float32 for |a| < 2^24.

    The gradient is that of the clip, rounding taken as the identity:

    \\[ \frac{\partial c}{\partial a} = \begin{cases} 1 & |a| \leq s (2^{b-1} - 1) \\ 0 & \text{else} \end{cases} \\]

    An accumulator beyond counts as saturated. (With s > 1 that includes those less than half a step beyond, which
    rounding would have brought back without loss: the range is symmetric, though rounding half up is not.)

    The clip can be switched off and on at any time by `enabled`: functions traced already follow without a retrace, and
    the model's weights are the same as without a clip. The switch is saved in the config. While the clip is on,
    training counts the saturated accumulators; see `saturation`.

    !!! example
        ```python
        layer = larq_clip.layers.QuantConv2D(
            64, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", kernel_constraint="weight_clip",
            accumulator_quantizer=larq_clip.quantizers.AccumulatorClip(step=2),
        )
        ```

    # Arguments
        bits: width of the clipped accumulator in bits, 2 to 16.
        step: distance of two neighbouring values, a power of two.
        enabled: whether the clip is on at first.

    # Raises
        ValueError: for other values, and when called in a dtype in which accumulators are not exact.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3.3 and Algorithm 1, line 7.
    """

    def __init__(self, bits: int = 8, step: float = 1, enabled: bool = True, **kwargs):
        self._state: _ClipState | None = None
        # Casting to the dtype of the policy that was active when this object was created would change the accumulator.
        super().__init__(**{**kwargs, "autocast": False})
        self.bits = _integer_within("bits", bits, SMALLEST_BITS, LARGEST_BITS)
        self.step = _power_of_two(step)
        self.precision = self.bits
        self.enabled = enabled

    def build(self, input_shape):
        self._state = _ClipState(self._enabled)
        super().build(input_shape)

    def call(self, inputs, training=None):
        require_exact_dtype(inputs.dtype, f"the input of {type(self).__name__} '{self.name}'")
        state = self._state
        assert state is not None  # Keras builds before it calls

        def clipped():
            # Keras passes False or None outside of training; a tensor where the caller decides late.
            if tf.is_tensor(training) or training:
                outside = tf.abs(inputs) > self.largest
                counted = tf.cast(training, tf.int64)
                state.outside.assign_add(counted * tf.math.count_nonzero(outside, dtype=tf.int64))
                state.total.assign_add(counted * tf.size(inputs, out_type=tf.int64))
            return saturating_round(inputs, self.bits, self.step)

        return tf.cond(state.switch, clipped, lambda: tf.identity(inputs))

    @property
    def largest(self) -> int | float:
        """The largest value that leaves the clip."""
        return arithmetic.clip_limit(self.bits) * self.step

    @property
    def enabled(self) -> bool:
        """Whether the clip is on; assign to switch."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool):
        if value not in (True, False):
            raise ValueError(f"enabled is {value!r}; accepted are True and False")
        if tf.inside_function():
            raise RuntimeError(
                f"AccumulatorClip '{self.name}' was switched inside a tf.function, where the assignment would run only "
                "while tracing; switch it outside, functions traced already follow"
            )
        self._enabled = bool(value)
        if self._state is not None:
            self._state.switch.assign(self._enabled)

    def saturation(self) -> float:
        """Share of the accumulators beyond the range, over all training steps since the last reset with the clip on.

        NaN where there was none. Under `tf.distribute` that of all replicas together; with several workers reading it
        is a collective operation, so all of them must.
        """
        if self._state is None or not (total := int(self._state.total.numpy())):
            return float("nan")
        return int(self._state.outside.numpy()) / total

    def reset_saturation(self) -> None:
        """Start counting anew."""
        if self._state is not None:
            self._state.outside.assign(0)
            self._state.total.assign(0)

    def get_config(self):
        return {**super().get_config(), "bits": self.bits, "step": self.step, "enabled": self.enabled}

    # A SavedModel holds traced functions and therefore every variable they read; a checkpoint must not hold these,
    # since it is exchanged with models that have none. On loading, Keras finds the variables of the layer it recreated
    # by `_lookup_dependency`, and then sets them as attributes too, which would make them weights.

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        children = super()._trackable_children(save_type, **kwargs)
        if save_type == "savedmodel" and self._state is not None:
            children = {**children, **self._state.variables()}
        return children

    def _lookup_dependency(self, name, *args, **kwargs):
        own = {} if self._state is None else self._state.variables()
        return own[name] if name in own else super()._lookup_dependency(name, *args, **kwargs)

    def __setattr__(self, name, value):
        if name not in _ClipState.CHILDREN:
            super().__setattr__(name, value)


@_register("fixed_point")
class FixedPoint(lq.quantizers.Quantizer):
    r"""Quantizes to fixed point: `bits` bits, `fraction_bits` of them after the point.

    \\[ q(w) = 2^{-f} \cdot \mathrm{clip}(\lfloor w \cdot 2^f + 1/2 \rfloor, \pm (2^{b-1} - 1)) \\]

    with b = `bits` and f = `fraction_bits`; exact for every float32. The gradient is estimated straight through:

    \\[
    \frac{\partial q}{\partial w} = \begin{cases} 1 & |w| \leq 2^{-f} (2^{b-1} - 1) \\ 0 & \text{else} \end{cases}
    \\]

    For the kernels of layers that stay full precision, the first convolution and the classifier: where their inputs
    are dyadic too, i.e. multiples of some 2^-g (pixels / 256, say, or ±1), all products are multiples of 2^-(f+g), and
    while the sum of their magnitudes stays below 2^24 such units, float32 adds them without rounding, in any order.
    Then Keras and a C runtime agree to the last bit, whatever their order of summation is. With 8 bits and pixels of
    0 to 255 units, that holds for any sum of up to 518 terms (518 * 127 * 255 < 2^24).

    A weight beyond the range gets no gradient, so let a constraint, `larq.constraints.WeightClip`, keep the latent
    weights within ± 2^-f (2^(b-1) - 1): 0.9921875 by default.

    # Arguments
        bits: width in bits, 2 to 16.
        fraction_bits: bits after the point, 0 to 24; there may be more than `bits`.

    # Raises
        ValueError: for other values.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3: first and last layer keep their
          precision.
    """

    def __init__(self, bits: int = 8, fraction_bits: int = 7, **kwargs):
        super().__init__(**kwargs)
        self.bits = _integer_within("bits", bits, SMALLEST_BITS, LARGEST_BITS)
        self.fraction_bits = _integer_within("fraction_bits", fraction_bits, 0, LARGEST_EXPONENT)
        self.precision = self.bits

    def call(self, inputs):
        return saturating_round(inputs, self.bits, 2.0**-self.fraction_bits)

    def get_config(self):
        return {**super().get_config(), "bits": self.bits, "fraction_bits": self.fraction_bits}


__all__ = ["AccumulatorClip", "FixedPoint"]
