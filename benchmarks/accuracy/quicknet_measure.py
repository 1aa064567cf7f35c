"""What a clip does to a binary network: its outputs, the signs that enter each binary layer, saturation; and ways of
choosing the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip._keras import keras, tf
from larq_clip.models import accumulator_clips, binary_layers, clip_model, set_clipping

BATCH = 20
BITS = 8
STEPS = tuple(2**exponent for exponent in range(13))

Steps: TypeAlias = tuple[int, ...]
# Accumulators, and how often each occurs, to a step.
Rule: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.int64]], int]


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


class Clipped:
    """A clipped copy of a model whose steps can be changed: one for all, since Keras keeps the memory of copies."""

    def __init__(self, model: keras.Model):
        self.model = clip_model(model, BITS)
        self.layers = binary_layers(self.model)
        clips = accumulator_clips(self.model)
        self.clips = [clips[layer.name] for layer in self.layers]

    def run(self, steps: Steps, inputs: NDArray[np.float32]) -> Run:
        """Run with these steps, one per binary layer, in order."""
        for clip, step in zip(self.clips, steps):
            clip.step, clip.enabled = step, True
        return run(self.model, inputs)

    def sequential(self, inputs: NDArray[np.float32], rule: Rule) -> Steps:
        """Choose layer after layer, each by its accumulators behind the clips of the layers before it."""
        set_clipping(self.model, False)
        for layer, clip in zip(self.layers, self.clips):
            counts = histograms(self.model, inputs, [layer])
            (clip.step,) = counts.choose(np.arange(len(inputs)), rule)
            clip.enabled = True
        return tuple(int(clip.step) for clip in self.clips)


# ---- Choosing steps -------------------------------------------------------------------------------------------------


def one_pass(model: keras.Model, inputs: NDArray[np.float32], percentile: float) -> Steps:
    """What clip_model itself chooses: every layer by its accumulators in the unclipped model."""
    model = clip_model(model, BITS, "auto", calibration_data=inputs, percentile=percentile)
    clips = accumulator_clips(model)
    return tuple(int(clips[layer.name].step) for layer in binary_layers(model))


@dataclass(frozen=True)
class Histograms:
    """How often each accumulator occurs: per binary layer ``(photos, 2 largest + 1)``."""

    counts: list[NDArray[np.int64]]

    def choose(self, photos: NDArray[np.int64], rule: Rule) -> Steps:
        """A step per layer by a rule, for these photos."""
        return tuple(rule(values(counts.shape[1]), counts[photos].sum(0)) for counts in self.counts)


def values(size: int) -> NDArray[np.int64]:
    """The accumulators that a histogram of this size counts."""
    return np.arange(size) - size // 2


def histograms(model: keras.Model, inputs: NDArray[np.float32], layers: list | None = None) -> Histograms:
    """Count the outputs of binary layers, of all if None, that are not clipped: their accumulators, per photo."""
    layers = binary_layers(model) if layers is None else layers
    largest = [int(np.prod(layer.kernel.shape[:-1])) for layer in layers]
    probe = keras.Model(model.inputs, [layer.output for layer in layers])
    call = tf.function(lambda batch: tf.nest.flatten(probe(batch, training=False)), reduce_retracing=True)
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


def as_clip_model(percentile: float) -> Rule:
    """What clip_model does in front of a relu: `smallest_covering` of the positive side, and 2 at least if all are
    even."""
    covering = smallest_covering(percentile, positive=True)
    return lambda a, counts: max(covering(a, counts), 1 if counts[a % 2 == 1].any() else 2)


def smallest_covering(percentile: float, positive: bool = False) -> Rule:
    """A rule: the smallest step such that at most 100 - `percentile` percent are beyond the range, on both sides or
    only on the positive one."""
    allowed = (100 - Fraction(str(percentile))) / 100

    def rule(a: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
        reach = a if positive else np.abs(a)
        limit = arithmetic.clip_limit(BITS)
        return next(step for step in STEPS if int(counts[reach > limit * step].sum()) <= allowed * int(counts.sum()))

    return rule
