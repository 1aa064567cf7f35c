"""What a clip does to a binary network: its outputs, the signs that enter each binary layer, saturation; and ways of
choosing the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip._keras import keras, tf
from larq_clip.models import accumulator_clips, binary_layers, clip_model

BATCH = 20
BITS = 8
STEPS = tuple(2**exponent for exponent in range(13))

Steps = tuple[int, ...]


# ---- Running --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What a model made of photos: softmax ``(photos, classes)``; per binary layer the packed sign bits of its input
    ``(photos, bytes)`` and how many bits there are; per clip the saturated share, over all photos."""

    softmax: NDArray[np.float32]
    signs: list[NDArray[np.uint8]]
    sizes: list[int]
    saturated: list[float]

    def predictions(self) -> NDArray[np.int64]:
        """The class of each photo."""
        return self.softmax.argmax(1)

    def flipped(self, other: Run) -> NDArray[np.float64]:
        """Share of the signs that differ from another run's, ``(photos, binary layers)``."""
        shares = [
            np.unpackbits(mine ^ theirs, axis=1).sum(1) / size
            for mine, theirs, size in zip(self.signs, other.signs, self.sizes)
        ]
        return np.stack(shares, axis=1)


def _batches(inputs: NDArray) -> Iterator[tf.Tensor]:
    for start in range(0, len(inputs), BATCH):
        yield tf.constant(inputs[start : start + BATCH])


def run(model: keras.Model, inputs: NDArray[np.float32]) -> Run:
    """Run a model, clipped or not, in batches."""
    layers = binary_layers(model)
    clips = accumulator_clips(model)
    # Clips count in training mode only; frozen, batch norms and everything else compute what they do in inference.
    probe = keras.Model(model.inputs, [model.output, *(layer.input for layer in layers)])
    probe.trainable = False
    for clip in clips.values():
        clip.reset_saturation()
    call = tf.function(lambda batch: probe(batch, training=True), reduce_retracing=True)
    softmax, signs, sizes = [], [], []
    for batch in _batches(inputs):
        output, *entering = (tensor.numpy() for tensor in call(batch))
        softmax.append(output)
        flat = [arithmetic.sign_bits(tensor).reshape(len(tensor), -1) for tensor in entering]
        sizes = [bits.shape[1] for bits in flat]
        signs.append([np.packbits(bits, axis=1) for bits in flat])
    saturated = [clips[layer.name].saturation() for layer in layers] if clips else []
    return Run(np.concatenate(softmax), [np.concatenate(each) for each in zip(*signs)], sizes, saturated)


def with_steps(model: keras.Model, steps: Steps) -> keras.Model:
    """A copy whose binary layers, in order, are clipped with these steps."""
    names = [layer.name for layer in binary_layers(model)]
    for step in sorted(set(steps)):
        model = clip_model(model, BITS, step, layers=[name for name, own in zip(names, steps) if own == step])
    return model


def steps_of(model: keras.Model) -> Steps:
    """The steps of a clipped model's binary layers, in order."""
    clips = accumulator_clips(model)
    return tuple(int(clips[layer.name].step) for layer in binary_layers(model))


# ---- Choosing steps -------------------------------------------------------------------------------------------------


def one_pass(model: keras.Model, inputs: NDArray[np.float32], percentile: float) -> Steps:
    """What clip_model chooses: every layer by its accumulators in the unclipped model."""
    return steps_of(clip_model(model, BITS, "auto", calibration_data=inputs, percentile=percentile))


def sequential(model: keras.Model, inputs: NDArray[np.float32], percentile: float) -> Steps:
    """Layer after layer, each by its accumulators behind the clips of the layers before it."""
    for layer in binary_layers(model):
        model = clip_model(model, BITS, "auto", layers=[layer.name], calibration_data=inputs, percentile=percentile)
    return steps_of(model)


@dataclass(frozen=True)
class Histograms:
    """How often each accumulator occurs in the unclipped model: per binary layer ``(photos, 2 largest + 1)``."""

    counts: list[NDArray[np.int64]]

    def choose(self, photos: NDArray[np.int64], rule: Callable[[NDArray, NDArray], int]) -> Steps:
        """A step per layer by a rule: (accumulators, how often each occurs in these photos) -> step."""
        return tuple(rule(values(counts.shape[1]), counts[photos].sum(0)) for counts in self.counts)


def values(size: int) -> NDArray[np.int64]:
    """The accumulators that a histogram of this size counts."""
    return np.arange(size) - size // 2


def histograms(model: keras.Model, inputs: NDArray[np.float32]) -> Histograms:
    """Count the accumulators of an unclipped model, per photo."""
    layers = binary_layers(model)
    largest = [int(np.prod(layer.kernel.shape[:-1])) for layer in layers]
    probe = keras.Model(model.inputs, [layer.output for layer in layers])
    call = tf.function(lambda batch: probe(batch, training=False), reduce_retracing=True)
    counts: list[list[NDArray]] = [[] for _ in layers]
    for batch in _batches(inputs):
        for own, limit, tensor in zip(counts, largest, call(batch)):
            indices = (tensor.numpy().astype(np.int64) + limit).reshape(len(tensor), -1)
            own.extend(np.bincount(row, minlength=2 * limit + 1) for row in indices)
    return Histograms([np.stack(own) for own in counts])


def clipped(a: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """The clip's value for accumulators."""
    return step * arithmetic.clip_accumulator(a, BITS, step).astype(np.int64)


def least_squares(a: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
    """The step with the smallest mean squared error of the accumulators; the smaller one of equals."""
    return min(STEPS, key=lambda step: int((counts * (clipped(a, step) - a) ** 2).sum()))


def least_squares_relu(a: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
    """`least_squares` of what a relu lets through."""
    return least_squares(np.maximum(a, 0), counts)


def positive_percentile(percentile: float) -> Callable[[NDArray, NDArray], int]:
    """A rule: the smallest step such that at most 100 - `percentile` percent exceed the range on the positive side."""

    def rule(a: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
        allowed = round(counts.sum() * (100 - percentile) / 100)
        limit = arithmetic.clip_limit(BITS)
        return next(step for step in STEPS if counts[a > limit * step].sum() <= allowed)

    return rule
