"""Algorithm 2 inside one `fit`: batch norms go into fixed point one after another, while the rest trains on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from larq_clip._batch_norm import FixedPointBatchNormalization, require_statistics_of
from larq_clip._callbacks.arguments import integer_from
from larq_clip._callbacks.learning_rate import RateRestart
from larq_clip._callbacks.progress import Progress
from larq_clip._keras import keras, lq
from larq_clip.fixed_point import GRANULARITIES, AffineFormat
from larq_clip.models import _find, _leaves, accumulator_clips

LOG = "quantized_batch_norms"


class _Progress(Progress):
    """What is quantized, since when and in which format, and where in the schedule training is."""

    NAME = "larq_clip_batch_norm_quantization"

    def __init__(self):
        super().__init__()
        self.began: int | None = None  # epoch of the first stage
        self.formats: dict[str, AffineFormat] = {}
        self.epochs: dict[str, int] = {}  # in which they were chosen
        self.lengths: dict[int, int] = {}  # batches of past epochs

    def to_json(self) -> dict[str, Any]:
        norms = [[path, self.epochs[path], *chosen] for path, chosen in self.formats.items()]
        return {**super().to_json(), "began": self.began, "norms": norms, "lengths": list(self.lengths.items())}

    def from_json(self, saved: dict[str, Any]) -> None:
        super().from_json(saved)
        self.began, self.lengths = saved["began"], dict(saved["lengths"])
        self.formats = {path: AffineFormat(*chosen) for path, _, *chosen in saved["norms"]}
        self.epochs = {path: epoch for path, epoch, *_ in saved["norms"]}

    def forget_from(self, epoch: int) -> None:
        super().forget_from(epoch)
        if self.began is not None and self.began >= epoch:
            self.began = None
        self.epochs = {path: chosen_in for path, chosen_in in self.epochs.items() if chosen_in < epoch}
        self.formats = {path: self.formats[path] for path in self.epochs}
        self.lengths = {known: length for known, length in self.lengths.items() if known < epoch}


class BatchNormQuantization(keras.callbacks.Callback):
    """Quantizes the batch norms of a model one after another while it trains: Algorithm 2 of the paper in one `fit`.

    It acts on the `larq_clip.layers.FixedPointBatchNormalization` layers of a model, which
    `larq_clip.models.quantize_model` puts in place of batch norms, or the user. Until the schedule begins all of them
    compute in float. Then, in the order of the data flow, `per_stage` of them at a time: the format is chosen from the
    variables as they are, the layer computes in it from there on and is frozen (``trainable=False``: gamma and beta,
    and the moving statistics, which training uses then, stay as they are), and the rest of the model trains for
    `epochs_per_stage` epochs, or `batches_per_stage` batches, until the next stage. Nothing else is changed: the
    formats of stored tensors (`larq_clip.layers.StorageQuantizer`, int8 layers) stay those that `quantize_model` chose.

    The schedule begins with the first epoch, from `start_epoch` on, at whose beginning all the model's clips are on. So
    with `TwoStageClipping` before it in the list, it waits for stage 2. At the end of each epoch the logs get the
    number of batch norms quantized so far as "quantized_batch_norms". After training the model stays as it is then; a
    warning says where fit ended before all batch norms were quantized. The functions that Keras traced are made anew at
    each stage. The optimizer keeps its slots; those of frozen variables are no longer used. Later fits leave frozen
    what is, without compiling anew. Whoever sets `trainable` of any layer, though, must compile before this fit, as
    before all: Keras trains with the `trainable` of all layers at compile, and sets them back at the end.

    Formats depend on variables only, so under `tf.distribute` they are the same on all replicas. Moving statistics that
    each replica has of its own (``synchronized=False``) become their mean on all of them as they are frozen.

    A fit that starts at epoch 0 starts anew: every batch norm of the schedule computes in float again, and trains again
    if it was quantized and frozen. One that was frozen in float stays frozen.

    Interrupted training that BackupAndRestore resumes (put it last in the list) continues in the same stage with the
    same formats, which are part of each checkpoint saved during training, as are those in TensorFlow's format that
    ModelCheckpoint saves and ``model.load_weights`` reads. Whole models saved during training hold the formats, too:
    load one and fit with the `initial_epoch` at which it was saved. Then the schedule is taken to have begun at
    `start_epoch`, since nothing says otherwise, and Keras starts the optimizer anew (with a warning) once variables are
    frozen.

    !!! example
        ```python
        model = larq_clip.models.quantize_model(clipped, x[:256])
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y, epochs=30, callbacks=[larq_clip.callbacks.BatchNormQuantization(epochs_per_stage=2)])
        ```

    # Arguments
        start_epoch: number of the first epoch in which a batch norm may be quantized, counted from 0.
        epochs_per_stage: epochs that the rest trains before the next stage, from 1; 1 if neither this nor
            `batches_per_stage` is given.
        batches_per_stage: the same in batches; stages then begin within epochs. With `steps_per_execution` they begin
            with the next execution.
        per_stage: how many batch norms are quantized at once, from 1, or "all".
        layers: names ("outer/inner" in nested models) or layers; None for all. Their order does not matter.
        freeze: whether quantized batch norms stop training. False keeps gamma, beta and the statistics in training, in
            the format once chosen, beyond which they saturate.
        granularity: as in `FixedPointBatchNormalization.quantize`: "channel" or "layer"; None for the finest that the
            layer's `variables` permit.
        restart_learning_rate: learning rate that each stage begins with.
        restart_factor: the same, as a multiple of the rate at the beginning of training.

    # Raises
        ValueError: for other values; at the start of training where the model has no such layer, or `layers` names
            others, or the learning rate is to be restarted and is a LearningRateSchedule; as a batch norm's turn comes,
            where it has no statistics or its variables are not finite.

    # References
        - Vorabbi et al., "Optimizing data-flow in binary neural networks", section 3.2 and Algorithm 2.
    """

    _norms: dict[str, FixedPointBatchNormalization]

    def __init__(
        self,
        start_epoch: int = 0,
        *,
        epochs_per_stage: int | None = None,
        batches_per_stage: int | None = None,
        per_stage: int | str = 1,
        layers: Sequence[str | keras.layers.Layer] | None = None,
        freeze: bool = True,
        granularity: str | None = None,
        restart_learning_rate: float | None = None,
        restart_factor: float | None = None,
    ):
        super().__init__()
        if epochs_per_stage is not None and batches_per_stage is not None:
            raise ValueError("epochs_per_stage and batches_per_stage are both given; give one of them")
        if layers is not None and (isinstance(layers, (str, keras.layers.Layer)) or not len(layers)):
            raise ValueError(f"layers is {layers!r}; accepted are None and a list of at least one name or layer")
        if not isinstance(freeze, bool):
            raise ValueError(f"freeze is {freeze!r}; accepted are True and False")
        if granularity is not None and granularity not in GRANULARITIES:
            raise ValueError(f"granularity is {granularity!r}; accepted are {list(GRANULARITIES)} and None")
        self.start_epoch = integer_from("start_epoch", start_epoch, 0)
        self.batches_per_stage = None
        if batches_per_stage is not None:
            self.batches_per_stage = integer_from("batches_per_stage", batches_per_stage, 1)
        self.epochs_per_stage = integer_from("epochs_per_stage", 1 if epochs_per_stage is None else epochs_per_stage, 1)
        self.per_stage = per_stage if per_stage == "all" else integer_from("per_stage", per_stage, 1, " and 'all'")
        self.layers, self.freeze, self.granularity = layers, freeze, granularity
        self.restart = RateRestart(restart_learning_rate, restart_factor)
        self._norms = {}
        self._progress = _Progress()
        self._started = self._warned = False
        self._epoch = self._length = self._batches_before = 0

    # ---- What Keras calls --------------------------------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        self._norms = self._scheduled()
        self.restart.check(self.model)
        self._started = self._warned = False
        self._build_optimizer()
        self._progress.track(self.model)
        last = self.start_epoch + (self._stages - 1) * self.epochs_per_stage
        if self.params["epochs"] <= (last if self.batches_per_stage is None else self.start_epoch):
            self._warn_unfinished()

    def on_epoch_begin(self, epoch, logs=None):
        if not self._started:
            self._start_at(epoch)
        self._epoch, self._length = epoch, 0
        if self._progress.began is None and epoch >= self.start_epoch and self._is_clipped():
            self._progress.began = epoch
        if self._progress.began is not None:
            if self.batches_per_stage is None:
                self._quantize_until((epoch - self._progress.began) // self.epochs_per_stage + 1)
            else:
                self._batches_before = self._batches(self._progress.began, epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if self.batches_per_stage is not None and self._progress.began is not None:
            self._quantize_until((self._batches_before + batch) // self.batches_per_stage + 1)

    def on_train_batch_end(self, batch, logs=None):
        self._length = int(batch) + 1  # resumed within an epoch, Keras counts in NumPy, which JSON does not take

    def on_epoch_end(self, epoch, logs=None):
        if self.batches_per_stage is not None:
            self._progress.lengths[epoch] = self._length
        if logs is not None:
            logs[LOG] = len(self._progress.formats)

    def on_train_end(self, logs=None):
        # Resumed after its last epoch, training ends without another one.
        if not self._started:
            self._start_at(self.params["epochs"])
        if len(self._progress.formats) < len(self._norms):
            self._warn_unfinished()
        self._progress.untrack(self.model)

    def _implements_train_batch_hooks(self):
        return self.batches_per_stage is not None

    # ---- Schedule ----------------------------------------------------------------------------------------------------

    @property
    def _at_once(self) -> int:
        return len(self._norms) if isinstance(self.per_stage, str) else self.per_stage

    @property
    def _stages(self) -> int:
        return -(-len(self._norms) // self._at_once)

    def _is_clipped(self) -> bool:
        return all(clip.enabled for clip in accumulator_clips(self.model).values())

    def _batches(self, first: int, end: int) -> int:
        """Batches of these epochs."""
        lengths = [self._progress.lengths.get(epoch, self.params["steps"]) for epoch in range(first, end)]
        if None in lengths:
            raise ValueError(
                f"batches_per_stage is {self.batches_per_stage} and training starts at epoch {end}, but how many "
                f"batches epoch {first + lengths.index(None)} had is not known; give steps_per_epoch to fit"
            )
        return sum(lengths)

    def _start_at(self, epoch: int) -> None:
        """Bring the layers into line with the epoch at which training starts, or starts again."""
        self._started = True
        progress = self._progress
        # A checkpoint made within this epoch knows of its first stages, which are past.
        progress.forget_from(epoch + 1 if progress.restored else epoch)
        if not progress.restored and epoch > self.start_epoch and progress.began is None and self._is_clipped():
            self._assume_begun(epoch)
        progress.initial_rates = self.restart.initial_rates(self.model, progress.initial_rates)
        if unknown := [path for path in progress.formats if path not in self._norms]:
            raise ValueError(
                f"the checkpoint that training resumes from has quantized {unknown}, of which this schedule knows "
                f"nothing; its batch norms are {list(self._norms)}. Resume with the same model and the same layers"
            )
        before = self._state()
        for path, norm in self._norms.items():
            if path in progress.formats:
                self._quantize(path)
            elif norm.quantized:
                norm.dequantize()
                if self.freeze:
                    self._set_trainable(norm, True)
        if self._state() != before:
            self._make_functions_anew()

    def _assume_begun(self, epoch: int) -> None:
        """No checkpoint says what happened before this epoch; the layers, and the schedule, must."""
        self._progress.began = self.start_epoch
        if self.batches_per_stage is None:
            stages = (epoch - 1 - self.start_epoch) // self.epochs_per_stage + 1
        else:
            stages = (self._batches(self.start_epoch, epoch) - 1) // self.batches_per_stage + 1
        late = []
        for path, norm in list(self._norms.items())[: stages * self._at_once]:
            if norm.format is None:
                late.append(path)
            self._progress.formats[path] = norm.format or self._choose(path)
            self._progress.epochs[path] = epoch - 1
        if late:
            warnings.warn(
                f"training starts at epoch {epoch}, before which {late} should have been quantized, and no checkpoint "
                "holds the formats; they are chosen now, from the variables as they are",
                stacklevel=2,
            )

    def _quantize_until(self, stages: int) -> None:
        """Begin all stages up to this number that have not begun."""
        due = list(self._norms)[: stages * self._at_once]
        new = [path for path in due if path not in self._progress.formats]
        for path in new:
            self._progress.formats[path] = self._choose(path)
            self._progress.epochs[path] = self._epoch
            self._quantize(path)
        if new:
            self.restart.apply(self.model, self._progress.initial_rates)
            self._make_functions_anew()

    def _warn_unfinished(self) -> None:
        if self._warned:
            return
        self._warned = True
        pace = f"{self.epochs_per_stage} epochs"
        if self.batches_per_stage is not None:
            pace = f"{self.batches_per_stage} batches"
        warnings.warn(
            f"fit ends after {self.params['epochs']} epochs, before all batch norms are quantized: "
            f"BatchNormQuantization takes {self._stages} stages of {pace} for {len(self._norms)} batch norms, from "
            f"epoch {self.start_epoch} on (counted from 0) and not before the clips are on; the others stay in float",
            stacklevel=2,
        )

    # ---- Layers ------------------------------------------------------------------------------------------------------

    def _scheduled(self) -> dict[str, FixedPointBatchNormalization]:
        """The batch norms to quantize by path, in the order of the data flow, which Keras keeps layers in."""
        leaves = dict(_leaves(self.model))
        wanted = None if self.layers is None else [_find(self.model, reference) for reference in self.layers]
        for layer in wanted or ():
            if not isinstance(layer, FixedPointBatchNormalization):
                raise ValueError(
                    f"layers holds '{layer.name}' ({type(layer).__name__}); accepted are FixedPointBatchNormalization "
                    "layers, which larq_clip.models.quantize_model puts in place of batch norms"
                )
        found = {
            path: layer
            for path, layer in leaves.items()
            if isinstance(layer, FixedPointBatchNormalization) and (wanted is None or any(layer is w for w in wanted))
        }
        if not found:
            raise ValueError(
                f"model '{self.model.name}' has no FixedPointBatchNormalization layer, so there is no batch norm to "
                "quantize; larq_clip.models.quantize_model puts them in place of batch norms, or build the model with "
                "larq_clip.layers.FixedPointBatchNormalization"
            )
        return found

    def _choose(self, path: str) -> AffineFormat:
        """Calibrate: the format that the variables ask for. The layer computes in it, too."""
        norm = self._norms[path]
        require_statistics_of(norm, path)
        finest = "channel" if norm.quantized_variables == "folded" else "layer"
        return norm.quantize(granularity=self.granularity or finest)

    def _quantize(self, path: str) -> None:
        norm = self._norms[path]
        norm.quantize(self._progress.formats[path])
        if self.freeze:
            self._set_trainable(norm, False)
            # Without synchronized=True each replica of tf.distribute has its own, and would train on another s and t.
            for statistic in (norm.moving_mean, norm.moving_variance):
                statistic.assign(statistic.numpy())

    def _set_trainable(self, norm: FixedPointBatchNormalization, trainable: bool) -> None:
        """Freeze or unfreeze, in later fits, too: they begin with setting `trainable` to what it was at compile."""
        norm.trainable = trainable
        self.model._compiled_trainable_state[norm] = trainable

    def _state(self) -> list[Any]:
        return [(norm.format, norm.trainable) for norm in self._norms.values()]

    def _make_functions_anew(self) -> None:
        """Formats and `trainable` are Python state, which traced functions do not follow."""
        self.model.train_function = self.model.make_train_function(force=True)
        self.model.test_function = self.model.predict_function = None

    def _build_optimizer(self) -> None:
        """Make the optimizer know all variables now, in the order that checkpoints of this training have.

        Slots of the present optimizers are saved in the order of the variables that they were built with, and
        `larq.optimizers.CaseOptimizer` never trains a variable that it did not see at its first step. So a model whose
        batch norms are frozen already must not be what decides it.
        """
        if not self.model.built:
            return
        optimizer = self.model.optimizer
        frozen = [norm for norm in self._norms.values() if self.freeze and norm.quantized and not norm.trainable]
        for norm in frozen:
            norm.trainable = True
        variables = self.model.trainable_variables
        for norm in frozen:
            norm.trainable = False
        if isinstance(optimizer, lq.optimizers.CaseOptimizer):
            if optimizer.var_opt_mapping is None:
                optimizer._compute_var_opt_mapping([(None, variable) for variable in variables])
        elif callable(getattr(optimizer, "build", None)):  # legacy ones make slots as they need them
            with self.model.distribute_strategy.scope():
                optimizer.build(variables)  # does nothing where it is built


__all__ = ["BatchNormQuantization"]
