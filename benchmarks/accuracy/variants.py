"""What the library does not do, built for comparison: sums that saturate on the way, signs behind the rounding."""

from __future__ import annotations

from typing import Any

from larq_clip import arithmetic
from larq_clip import layers as ours
from larq_clip._keras import keras, tf

CHUNK = 128  # channels that one partial sum holds: a NEON register of bits


class SaturatingConv2D(ours.QuantConv2D):
    """A clipped binary convolution whose running sum saturates after every addition, to the limit of its clip.

    A partial sum is that of one tap and up to 128 channels, added row by row, as a kernel with 8-bit accumulators
    would. Its steps are those of the clip; the result depends on the order, which is why `larq_clip` saturates once.
    """

    def convolution_op(self, inputs, kernel):
        limit = arithmetic.clip_limit(self.accumulator_quantizer.bits) * self.accumulator_quantizer.step
        height, width = inputs.shape[1:3]
        if self.padding == "same" or self.dilation_rate != (1, 1) or self.groups != 1:
            raise ValueError(
                f"layer '{self.name}' has padding={self.padding!r}, dilation_rate={self.dilation_rate} and "
                f"groups={self.groups}; accepted are padding by pad_values or none, no dilation and one group"
            )
        rows, columns = kernel.shape[:2]
        total: Any = 0.0
        for i in range(rows):
            for j in range(columns):
                last_row, last_column = height - rows + i + 1, width - columns + j + 1
                tap = inputs[:, i : last_row : self.strides[0], j : last_column : self.strides[1]]
                for c in range(0, kernel.shape[2], CHUNK):
                    part = tf.tensordot(tap[..., c : c + CHUNK], kernel[i, j, c : c + CHUNK], axes=1)
                    total = tf.clip_by_value(total + part, -limit, limit)
        return self._quantize_accumulator(total)


def saturate_partial_sums(model: keras.Model) -> keras.Model:
    """A copy of a clipped model whose convolutions are `SaturatingConv2D`."""

    def replace(layer: Any) -> Any:
        kind = SaturatingConv2D if type(layer) is ours.QuantConv2D else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=replace)
    copy.set_weights(model.get_weights())
    return copy
