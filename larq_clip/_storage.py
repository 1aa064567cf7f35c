"""Layers that store tensors in 8 or 16 bits, and those that join them; public in `larq_clip.layers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from larq_clip import fixed_point
from larq_clip._keras import keras, tf
from larq_clip.quantizers import PACKAGE, compute_exactly, saturating_round

Format = int | Sequence[int] | None


def grid_steps(fraction_bits: Format, channels: int | None, owner: str) -> np.ndarray:
    """2^-f as float64, () or ``(channels,)``.

    Args:
        channels: of the tensor; None where Keras does not know it while tracing (batches of a Sequence).

    Raises:
        ValueError: where there is one f per channel, but not as many as channels.
    """
    bits = np.asarray(fraction_bits)
    if bits.ndim and channels is not None and bits.size != channels:
        raise ValueError(f"{owner} has {bits.size} fraction bits, but its input {channels} channels")
    return np.ldexp(1.0, -bits)


class _Storing(keras.layers.Layer):
    """What all of them share: width, fraction bits, config, one rounding."""

    def __init__(self, *args, bits: int | None = 8, fraction_bits: Format = None, **kwargs):
        # Casting an exact sum to the dtype of the layer would round it once more.
        super().__init__(*args, **{**kwargs, "autocast": False})
        compute_exactly(self)
        if bits not in self._accepted_bits():
            raise ValueError(f"bits is {bits!r}; accepted are {list(self._accepted_bits())}")
        self.bits = bits
        self.fraction_bits = self._checked(fraction_bits)

    @classmethod
    def _accepted_bits(cls) -> tuple[int | None, ...]:
        return fixed_point.STORED_BITS

    def _checked(self, fraction_bits: Format) -> int | list[int] | None:
        if fraction_bits is not None and self.bits is None:
            raise ValueError(f"{type(self).__name__} '{self.name}' has bits=None, so it stores nothing; give it bits")
        return None if fraction_bits is None else fixed_point.as_fraction_bits(fraction_bits)

    @property
    def quantized(self) -> bool:
        """Whether the layer rounds: it has fraction bits."""
        return self.fraction_bits is not None

    def quantize(self, fraction_bits: int | Sequence[int]) -> None:
        """Round from now on; functions traced already do not follow.

        Raises:
            ValueError: for anything but an integer within +-24 or a list of one per channel.
        """
        self.fraction_bits = self._checked(fixed_point.as_fraction_bits(fraction_bits))

    def dequantize(self) -> None:
        """Let everything pass again."""
        self.fraction_bits = None

    def _store(self, exact: tf.Tensor) -> tf.Tensor:
        """The stored tensor, float32; the exact one where the layer does not store."""
        if self.bits is None:
            return exact
        if self.fraction_bits is not None:
            steps = grid_steps(self.fraction_bits, exact.shape[-1], f"{type(self).__name__} '{self.name}'")
            exact = saturating_round(exact, self.bits, tf.constant(steps, tf.float64))
        return tf.cast(exact, tf.float32)

    def get_config(self):
        return {**super().get_config(), "bits": self.bits, "fraction_bits": self.fraction_bits}


@keras.utils.register_keras_serializable(PACKAGE)
class StorageQuantizer(_Storing):
    r"""Stores a tensor in 8 or 16 bits, with a power of two per channel.

    \\[ q = \mathrm{clip}(\lfloor 2^f x + 1/2 \rfloor, \pm (2^{b-1} - 1)), \quad y = 2^{-f} q \\]

    with b = `bits` and f = `fraction_bits`; the integers of `larq_clip.fixed_point.store`. The gradient is 1 for
    |x| <= 2^-f (2^(b-1) - 1) and 0 beyond. While there are no fraction bits, everything passes.

    It stands where memory is written: on the shortcut branch of a residual sum. The branch that goes on to a sign takes
    the exact sum, in front of this layer: sign before rounding. Two channels that never mix may have different f.

    # Arguments
        bits: 8 or 16.
        fraction_bits: an integer, or a list of one integer per channel (the last axis), each within ±24; may be
            negative. None while not calibrated.

    # Input shape
        Any, float32 or float64 (which are not cast before rounding), channels last.

    # Output shape
        The same; float32, which holds 16 bits exactly.

    # Raises
        ValueError: for other values, and where fraction bits and channels differ in number.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3.2 and Fig. 3. There the format is
          one per tensor.
    """

    def __init__(self, bits: int = 8, fraction_bits: Format = None, **kwargs):
        super().__init__(bits=bits, fraction_bits=fraction_bits, **kwargs)

    def call(self, inputs):
        return self._store(tf.cast(inputs, tf.float64))

    def compute_output_shape(self, input_shape):
        return input_shape


class _Joining(_Storing):
    """A merge layer of Keras in front of the storage."""

    def __init__(self, *args, bits: int | None = None, **kwargs):
        super().__init__(*args, bits=bits, **kwargs)

    @classmethod
    def _accepted_bits(cls) -> tuple[int | None, ...]:
        return (None, *fixed_point.STORED_BITS)

    def _merge_function(self, inputs: Any) -> tf.Tensor:
        return self._store(super()._merge_function([tf.cast(x, tf.float64) for x in inputs]))


@keras.utils.register_keras_serializable(PACKAGE)
class Add(_Joining, keras.layers.Add):
    """Exact sum of fixed-point tensors, stored with one rounding if `bits` is given.

    The terms may have different fraction bits; they are added at full precision, in float64, and nothing is rounded
    before the sum is stored as `StorageQuantizer` does it, with its gradient. With bits=None the exact sum is handed
    on, to a sign on one branch and to a `StorageQuantizer` on the other.

    # Arguments
        bits: 8, 16 or None.
        fraction_bits: as in `StorageQuantizer`; None while not calibrated.
        others: as in `keras.layers.Add`.

    # Output shape
        As in `keras.layers.Add`; float32 if `bits` is given, else float64.

    # Raises
        ValueError: for other values, and where fraction bits and channels differ in number.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3.2, Fig. 1ii.
    """


@keras.utils.register_keras_serializable(PACKAGE)
class Concatenate(_Joining, keras.layers.Concatenate):
    """Concatenation of fixed-point tensors, stored with one rounding if `bits` is given.

    Where the terms are stored already and keep their fraction bits, storing them again changes nothing.

    # Arguments
        bits: 8, 16 or None.
        fraction_bits: as in `StorageQuantizer`, for the channels of the result; None while not calibrated.
        others: as in `keras.layers.Concatenate`.

    # Output shape
        As in `keras.layers.Concatenate`; float32 if `bits` is given, else float64.

    # Raises
        ValueError: for other values, and where fraction bits and channels differ in number.
    """


__all__ = ["Add", "Concatenate", "StorageQuantizer"]
