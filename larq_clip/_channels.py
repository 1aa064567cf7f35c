"""Layers that move channels and compute nothing; public in `larq_clip.layers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from larq_clip._keras import keras, tf
from larq_clip.quantizers import PACKAGE


class _Moving(keras.layers.Layer):
    """What both share: nothing is cast, so that exact sums stay exact."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{**kwargs, "autocast": False})


@keras.utils.register_keras_serializable(PACKAGE)
class TakeChannels(_Moving):
    """Some channels of a tensor, in any order: ``x[..., channels]``; a slice, one part of a split, a shuffle.

    # Arguments
        channels: indices of channels of the input, one per channel of the output.

    # Input shape
        Any, channels last, of any dtype, which the output has, too.

    # Raises
        ValueError: for other values, and for indices that the input has not.
    """

    def __init__(self, channels: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        array = np.asarray(channels)
        if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer) or np.any(array < 0):
            raise ValueError(f"channels is {channels!r}; accepted is a list of indices from 0 on")
        self.channels: list[int] = array.tolist()

    def build(self, input_shape):
        if max(self.channels) >= input_shape[-1]:
            raise ValueError(
                f"{type(self).__name__} '{self.name}' takes channel {max(self.channels)}; its input has "
                f"{input_shape[-1]}"
            )
        super().build(input_shape)

    def call(self, inputs):
        first, size = self.channels[0], len(self.channels)
        if self.channels == list(range(first, first + size)):
            return inputs[..., first : first + size]
        return tf.gather(inputs, self.channels, axis=-1)

    def compute_output_shape(self, input_shape):
        return tf.TensorShape([*input_shape[:-1], len(self.channels)])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels}


@keras.utils.register_keras_serializable(PACKAGE)
class PadChannels(_Moving):
    """Channels of zeros in front of those of a tensor and behind them, so that it can be added to a wider one.

    # Arguments
        before: how many in front.
        after: how many behind.

    # Input shape
        Any, channels last, of any dtype, which the output has, too.

    # Raises
        ValueError: for anything but integers from 0 on.
    """

    def __init__(self, before: int = 0, after: int = 0, **kwargs):
        super().__init__(**kwargs)
        for name, value in (("before", before), ("after", after)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
                raise ValueError(f"{name} is {value!r}; accepted are integers from 0 on")
        self.before, self.after = int(before), int(after)

    def call(self, inputs):
        return tf.pad(inputs, [[0, 0]] * (inputs.shape.rank - 1) + [[self.before, self.after]])

    def compute_output_shape(self, input_shape):
        return tf.TensorShape([*input_shape[:-1], self.before + input_shape[-1] + self.after])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "before": self.before, "after": self.after}


__all__ = ["PadChannels", "TakeChannels"]
