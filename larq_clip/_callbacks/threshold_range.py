"""Keeping the thresholds of clipped layers where the clipped accumulator can cross them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from larq_clip._callbacks.graph import WITHIN_RANGE, Consumers, clipped_layers
from larq_clip._keras import keras
from larq_clip.models import require_clips
from larq_clip.quantizers import AccumulatorClip

PLAIN = (None, keras.activations.linear)


def thresholds(norm: keras.layers.BatchNormalization) -> NDArray[np.float64]:
    """tau = mu - beta sigma / gamma of each channel: where the batch norm of a value is 0; NaN where gamma is 0.

    mu and sigma = sqrt(variance + epsilon) are those of inference, the moving ones.
    """
    gamma, beta, mean, sigma = _parameters(norm)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gamma == 0, np.nan, mean - beta * sigma / gamma)


def project(norm: keras.layers.BatchNormalization, limit: float | NDArray) -> int:
    """Move beta of each channel whose threshold is beyond +-`limit`, of all or of each, so that the threshold is there.

    beta' = gamma (mu - tau') / sigma, with tau' = clip(tau, +-limit). beta of all other channels keeps its bits.

    Returns:
        The number of channels moved.
    """
    gamma, beta, mean, sigma = _parameters(norm)
    tau = thresholds(norm)
    outside = np.abs(tau) > limit  # False where tau is NaN
    if not outside.any():
        return 0
    moved = gamma * (mean - np.clip(tau, -limit, limit)) / sigma
    norm.beta.assign(np.where(outside, moved, beta).astype(norm.beta.dtype.as_numpy_dtype))
    return int(outside.sum())


def _parameters(norm: keras.layers.BatchNormalization) -> tuple[NDArray[np.float64], ...]:
    beta, mean, variance = (v.numpy().astype(np.float64) for v in (norm.beta, norm.moving_mean, norm.moving_variance))
    gamma = norm.gamma.numpy().astype(np.float64) if norm.scale else np.ones_like(mean)
    return gamma, beta, mean, np.sqrt(variance + norm.epsilon)


class _Pair(NamedTuple):
    path: str
    layer: Any
    clip: AccumulatorClip
    norm: keras.layers.BatchNormalization

    @property
    def limit(self) -> float | NDArray:
        # Half a step inside: all the values of the clip but the outermost lie within, so each side of the threshold
        # has at least one, whichever way the comparison goes, and float32 rounding cannot push the threshold out.
        limit = self.clip.largest - self.clip.step / 2
        return limit * self.layer.accumulator_scale() if getattr(self.layer, "has_scale", False) else limit


class ThresholdRange(keras.callbacks.Callback):
    r"""Keeps the threshold of every channel of a clipped layer inside the clipped range.

    Where nothing but the sign of a batch norm is used, as between the layers of a VGG, a channel is a comparison of the
    clipped accumulator c with

    \\[ \tau = \mu - \beta \sigma / \gamma \\]

    and with tau beyond the range +-L of the clip it is constant: the channel tells nothing, and since its accumulators
    beyond get no gradient, it may stay so. This callback moves tau to +-(L - step / 2), by moving beta, of all trained
    variables the one that does nothing else (L and step times what a unit of the accumulator counts, where that is not
    1: the scale of a kernel, 1 / n of inputs m / n):

    \\[ \beta \leftarrow \gamma (\mu - \mathrm{clip}(\tau, \pm (L - s / 2))) / \sigma \\]

    It acts on each batch norm that follows a clipped layer without bias and activation, straight or through pools and
    layers that move or drop, and whose output goes nowhere but into signs; on others a threshold has no meaning, so
    residual networks keep their batch norms as they are. Layers whose clip is off are left alone: without a clip there
    is no range. At the end of each epoch the logs get, for each such layer, the number of channels moved in the epoch,
    as "<layer>_thresholds_moved" (with every="batch" a channel counts each time).

    Why a callback: a constraint or regularizer on beta sees beta alone, and a layer of its own would have to know the
    range of the layer before. mu and sigma are not trained at all; they change in the forward pass, after which no
    constraint runs. As a callback it works for any optimizer, and saved models hold Keras' own layers. The price: the
    projection uses the moving statistics, those the device computes with, and not those of the training batch.

    Measured (benchmarks/accuracy/threshold_range.py, Fashion-MNIST, 8 seeds): it does what it says, and gains nothing.
    As the clip is switched on, 4.7 % of the channels are constant with 8 bits; ordinary training of stage 2 brings
    that to 0.3 %, since the batch norm's statistics follow the clipped accumulators; with this callback it is 0. The
    accuracy differs by less than the seeds do (-0.3 +- 0.4 points); with a clip of 6 bits it is lower by 0.8 (every
    batch) to 1.3 points (every epoch). So train without it; it is for models that must have no constant channel.

    Put it before BackupAndRestore and ModelCheckpoint in the list, which then save the projected model. It has no state
    to resume.

    # Arguments
        every: "epoch": project before each validation and at the end of each epoch; "batch": after each training step.

    # Raises
        ValueError: for another value; at the start of training where the model has no `AccumulatorClip`, or no batch
            norm that this callback can act on.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3.2 and equation 2.
    """

    def __init__(self, every: str = "epoch"):
        super().__init__()
        if every not in ("epoch", "batch"):
            raise ValueError(f"every is {every!r}; accepted are 'epoch' and 'batch'")
        self.every = every
        self._pairs: list[_Pair] = []
        self._moved: dict[str, int] = {}

    def on_train_begin(self, logs=None):
        self._pairs = threshold_pairs(self.model)
        if not self._pairs:
            raise ValueError(
                f"no clipped layer of model '{self.model.name}' is followed by a batch norm (with center=True) of "
                "which only the signs are used, so there is no threshold to keep; leave ThresholdRange out"
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._moved = {pair.path: 0 for pair in self._pairs}

    def on_train_batch_end(self, batch, logs=None):
        if self.every == "batch":
            self._project()

    def on_test_begin(self, logs=None):
        if self._moved:  # within fit
            self._project()

    def on_epoch_end(self, epoch, logs=None):
        self._project()
        if logs is not None:
            for path, moved in self._moved.items():
                logs[f"{path}_thresholds_moved"] = moved

    def on_train_end(self, logs=None):
        self._moved = {}

    def _implements_train_batch_hooks(self):
        return self.every == "batch"

    def _project(self) -> None:
        for pair in self._pairs:
            if pair.clip.enabled:
                self._moved[pair.path] += project(pair.norm, pair.limit)


def threshold_pairs(model: keras.Model) -> list[_Pair]:
    """The clipped layers, with clip and batch norm, on whose thresholds `ThresholdRange` acts."""
    require_clips(model)
    consumers = Consumers(model)
    pairs = []
    for path, layer, clip in clipped_layers(model):
        if getattr(layer, "use_bias", False) or getattr(layer, "activation", None) not in PLAIN:
            continue
        norm: Any = consumers.norm_behind(layer, WITHIN_RANGE)
        if norm is not None and norm.center and consumers.only_signs_behind(norm):
            pairs.append(_Pair(path, layer, clip, norm))
    return pairs


__all__ = ["ThresholdRange", "project", "threshold_pairs", "thresholds"]
