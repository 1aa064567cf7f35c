"""Transforms of whole Keras models: clip the accumulators of all binary layers, switch clips on and off, quantize."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from larq_clip import fixed_point
from larq_clip._binary import REPLACED_BY, BinaryKind, binary_kind, is_binary
from larq_clip._calibration import AccumulatorHistogram, batches_of, check_percentile, feeds_relu_only, observe
from larq_clip._copying import config_of, copy_binary
from larq_clip._distribution import Workers, outside_scope
from larq_clip._keras import keras
from larq_clip._quantize import Quantization
from larq_clip._report import LayerReport, compare
from larq_clip._scope import quantized_scope
from larq_clip.quantizers import AccumulatorClip

LayerRef: TypeAlias = "str | keras.layers.Layer"


def binary_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The model's binary convolutions and dense layers, those of nested models included, in the model's order.

    Binary means that the input quantizer maps everything to -1 and +1, or to levels m / n of 1 to 3 bits, m = 0 ... n
    (heaviside, DoReFa), and the kernel quantizer to -1 and +1 or to -s and +s, one s > 0 per filter
    (magnitude_aware_sign, XNOR-Net's), as found by calling them on probes and on the layer's own kernel; their
    `precision` is not asked. Kinds: Larq's QuantConv2D and QuantDense, and
    `larq_clip.layers`', with or without a clip.

    Raises:
        TypeError: where `model` is no Keras model.
        ValueError: where it, or a model nested in it, is neither functional nor Sequential, or is not built.
    """
    return [layer for _, layer in _leaves(_require_graph(model)) if type(layer) in REPLACED_BY and is_binary(layer)]


@quantized_scope()
def clip_model(
    model: keras.Model,
    bits: int = 8,
    step: float | str = 1,
    layers: Sequence[LayerRef] | None = None,
    calibration_data: Any = None,
    *,
    percentile: float = 99.9,
) -> keras.Model:
    """A copy of a model whose binary layers saturate their accumulators to `bits` bits.

    Each binary layer (see `binary_layers`) becomes the layer of `larq_clip.layers` with the same name, config and
    weights, and an `AccumulatorClip` of its own. Everything else is copied as by ``keras.models.clone_model``: shared
    layers stay shared, nested functional and Sequential models are copied in turn, and the copy is independent of the
    original and not compiled. Layers that have a clip already keep it, with its bits, its step and its switch. A kernel
    with a scale per filter gets scaled_kernel=True: what is clipped is the integer accumulator of its signs, and the
    scale multiplies it behind the clip. A layer with inputs m / n gets input_levels=n: what is clipped is the integer
    sum of the products m w, whose magnitude reaches n times the number of taps, and 1 / n multiplies it behind the
    clip. Initializers that are plain functions become zeros, since the copy has weights.

    With step="auto" each layer gets the smallest power of two s >= 1 such that at least `percentile` percent of its
    |accumulators| over the calibration data are at most s (2^(bits-1) - 1); s >= 2 where all of them are even, which
    rounds nothing (only sums of signs can be: those of levels are even or odd as the image has it). Where a relu and
    nothing else follows a layer, its negative accumulators count as 0. They are the exact accumulators of the model as
    given, so before any new clip: one pass over the data serves all layers, the choice for a layer does not depend on
    which others are clipped, and since each chosen clip changes next to no accumulator beyond its rounding, measuring
    behind the clips of earlier layers would give practically the same. A *pretrained* model needs this, or a second
    training stage: step 1 alone costs most of its accuracy. A low percentile costs range, a high one low bits; on a
    pretrained QuickNet 99.9 changes the outputs least (benchmarks/accuracy).

    Args:
        model: functional or Sequential, built.
        bits: width of the clipped accumulators, 2 to 16.
        step: a power of two, or "auto".
        layers: names or layer objects to clip; all binary layers if None. A layer of a nested model is named
            "outer/inner", or by its object.
        calibration_data: for step="auto", and only then: an array of inputs ``(images, ...)``, a dict of such arrays by
            input name, or a finite iterable (``tf.data.Dataset``, ``keras.utils.Sequence``, list, generator) of batches
            x, (x, y) or (x, y, sample_weight).
        percentile: for step="auto": above 0, up to 100.

    Raises:
        TypeError: where `model` is no Keras model, or the calibration data is of no accepted kind.
        ValueError: for a subclassed or unbuilt model, also a nested one; where there is no binary layer to clip; where
            `layers` holds unknown names, or layers that are not binary or clipped already; where, with layers=None, the
            model has binary layers of kinds that cannot be clipped; for missing, superfluous, empty or ill-fitting
            calibration data, and for bits, step or percentile out of range.
    """
    automatic = isinstance(step, str) and step == "auto"
    if isinstance(step, str) and not automatic:
        raise ValueError(f"step is {step!r}; accepted are powers of two and 'auto'")
    fixed: Any = 1 if automatic else step
    AccumulatorClip(bits, fixed)  # refuse wrong values before long work
    wanted = check_percentile(percentile)
    if not automatic and calibration_data is not None:
        raise ValueError(f"calibration_data is given, but step is {step!r}; it is used with step='auto' only")
    targets = _targets(_require_graph(model), layers)
    workers = Workers(model)
    steps = dict.fromkeys(map(id, targets), fixed)
    if automatic:
        histograms = {
            id(layer): AccumulatorHistogram(feeds_relu_only(model, layer), signs=_kind(layer).levels is None)
            for layer in targets
        }
        observed = outside_scope(lambda: _copy(model, histograms))
        workers.together("calibration", lambda: outside_scope(lambda: observe(observed, calibration_data)))
        for key, histogram in histograms.items():
            histogram.counts = workers.sum(histogram.counts)
            steps[key] = histogram.smallest_step(bits, wanted)
    with workers.scope():
        return _copy(model, {key: AccumulatorClip(bits, step) for key, step in steps.items()})


@quantized_scope()
def quantize_model(
    clipped_model: keras.Model,
    calibration_data: Any,
    residual_bits: int = 8,
    float_layers: str = "int8",
    variables: str = "folded",
    granularity: str = "channel",
    report: bool = False,
    *,
    percentile: float = 99.9,
) -> Any:
    """A copy of a clipped model whose forward pass is an integer program; no retraining is needed for a good one.

    - Batch norms become `larq_clip.layers.FixedPointBatchNormalization`; with granularity="tensor" or
      variables="paper" each has the one format that Algorithm 2 finds, else one per channel.
    - Sums, `keras.layers.Add` and ``x + y`` alike, become `larq_clip.layers.Add`, which hands on the exact sum. What
      needs it in memory, the shortcut branch, a concatenation, an int8 layer, sees it behind a `StorageQuantizer` named
      "<layer>_int8"; what needs a sign only sees the exact sum: sign before rounding. Of the operands of a sum one is
      added as it is computed, a batch norm's output that nothing else needs, preferably behind a binary layer; all
      others are stored.
    - Layers that are not binary become `Int8Conv2D`, `Int8DepthwiseConv2D` and `Int8Dense`, or stay in float32, and the
      batch norms behind them, too, up to the next stored tensor.
    - Clipped layers, Larq layers with other quantizers, pooling, activations at the end stay what they are. Sums and
      means are float64 between layers, which is exact. The scale of a scaled kernel gets 16 bits per filter.
    - Activations that only cut at bounds m 2^-8 around 0, as relu6 and hard tanh do, are exact. Slices, splits and
      shuffles of channels, `Lambda` layers and operations of TensorFlow alike, become `TakeChannels`; sums with a
      narrower tensor, `PadChannels` and `Add`. What such a layer of arbitrary code computes is found by calling it on
      probes; other code is refused.
    - Multiplication of two tensors, PReLU and all other activations are real-valued by nature. They are kept in
      float32, the report says so, and what they give is stored before anything but another of them, or a sign, sees
      it. So all else stays an integer program, given what is stored there; near a tie of the rounding, other floating
      point may store a neighbour.

    Stored tensors have a power of two per channel, the smallest whose 2^-f 2^(bits-1) is not exceeded by `percentile`
    percent of |y|, measured in the clipped model as given, in one pass over the data. On a pretrained QuickNet the
    least squared error per channel measures no better, and the fewest flipped signs of the next sums far worse: there
    large values, whose sign is safe, saturate, and later sums miss them (benchmarks/accuracy). Layers keep their names
    and weights, so weights of the clipped model load by name. The copy is not compiled.

    Args:
        clipped_model: functional or Sequential, without nested models, as `clip_model` returns it, clips on, trained.
        calibration_data: an array of inputs ``(images, ...)``, a dict of such arrays by input name, or a finite
            iterable of batches x, (x, y) or (x, y, sample_weight); some hundred images.
        residual_bits: 8 or 16, of stored sums and of operands of sums and concatenations. Inputs of int8 layers are
            stored in 8 bits in any case.
        float_layers: "int8" or "float32": what becomes of the layers that are not binary.
        variables: of the batch norms: "folded" or "paper"; see `FixedPointBatchNormalization`.
        granularity: "channel" or "tensor": fraction bits of stored tensors and of batch norms.
        report: return the list of `LayerReport`s, too; a second pass over the data.
        percentile: above 0, up to 100.

    Returns:
        The model; with report=True a pair of it and a list of a `LayerReport` for each layer.

    Raises:
        TypeError: where the model is no Keras model, or the calibration data of no accepted kind.
        ValueError: for a model that is nested, not built, not clipped, with its clips off, with batch norms without
            statistics, with a layer or an activation that has no integer program (each named); for calibration data
            that is empty or does not fit; for other values of the arguments.
    """
    accepted: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "residual_bits": (residual_bits, fixed_point.STORED_BITS),
        "float_layers": (float_layers, ("int8", "float32")),
        "variables": (variables, fixed_point.VARIABLES),
        "granularity": (granularity, ("channel", "tensor")),
    }
    for name, (value, values) in accepted.items():
        if value not in values:
            raise ValueError(f"{name} is {value!r}; accepted are {' and '.join(map(repr, values))}")
    wanted = check_percentile(percentile)
    model = _require_graph(clipped_model)
    workers = Workers(model)
    local = model if workers.strategy is None else outside_scope(lambda: _copy(model, {}))

    def quantize() -> tuple[keras.Model, list[LayerReport]]:
        quantization = Quantization(local, residual_bits, float_layers == "int8", variables, granularity == "channel")
        batches = workers.together("calibration", lambda: batches_of(local, calibration_data))
        quantization.calibrate(batches, wanted, workers)
        quantized = quantization.build()
        return quantized, compare(quantization, quantized, batches, workers) if report else []

    quantized, rows = outside_scope(quantize)
    if workers.strategy is not None:
        with workers.scope():
            quantized = _copy(quantized, {})
    return (quantized, rows) if report else quantized


def accumulator_clips(model: keras.Model) -> dict[str, AccumulatorClip]:
    """The clips of a model, of any kind, by the name of their layer, "outer/inner" in nested models."""
    clips: dict[str, AccumulatorClip] = {}
    for path, layer in _leaves(model):
        inside = [module for module in (layer, *layer.submodules) if isinstance(module, AccumulatorClip)]
        for clip in inside:
            clips[path if len(inside) == 1 else f"{path}/{clip.name}"] = clip
    return clips


def set_clipping(model: keras.Model, enabled: bool) -> None:
    """Switch all clips of a model on or off, also those in nested models; functions traced already follow.

    Raises:
        ValueError: where the model has no clip.
    """
    for clip in require_clips(model).values():
        clip.enabled = enabled


def require_clips(model: keras.Model) -> dict[str, AccumulatorClip]:
    """`accumulator_clips`, of which there must be some."""
    clips = accumulator_clips(model)
    if not clips:
        raise ValueError(
            f"model '{model.name}' has no AccumulatorClip; make one that has with larq_clip.models.clip_model, or "
            "build it from larq_clip.layers with accumulator_quantizer='accumulator_clip'"
        )
    return clips


# ---- Walking --------------------------------------------------------------------------------------------------------


def _leaves(model: keras.Model, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Path and object of every layer that is not itself a model; shared ones once."""
    seen = set() if seen is None else seen
    for layer in model.layers:
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if isinstance(layer, keras.Model):
            yield from _leaves(layer, f"{prefix}{layer.name}/", seen)
        else:
            yield f"{prefix}{layer.name}", layer


def _require_graph(model: Any, outer: str = "") -> keras.Model:
    """Refuse models whose layers' connections Keras does not know, and unbuilt ones."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"model is of type {type(model).__name__}; accepted are functional and Sequential Keras models")
    name = f"model '{outer}{model.name}'"
    if not isinstance(model, keras.Sequential) and not getattr(model, "_is_graph_network", False):
        raise ValueError(
            f"{name} is a subclassed model ({type(model).__name__}), whose layers Keras cannot copy one by one; "
            "accepted are functional and Sequential models. Write it with the functional API, or use "
            "larq_clip.layers in it"
        )
    if not model.built:
        raise ValueError(f"{name} is not built; call model.build(input_shape), or the model on a batch, first")
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _require_graph(layer, f"{outer}{model.name}/")
    return model


# ---- Choosing -------------------------------------------------------------------------------------------------------


def _targets(model: keras.Model, layers: Sequence[LayerRef] | None) -> list[keras.layers.Layer]:
    """The layers to clip; see `clip_model`."""
    if layers is None:
        _refuse_other_kinds(model)
        binary = binary_layers(model)
        if not binary:
            raise ValueError(
                f"model '{model.name}' has no binary layer: no Larq QuantConv2D or QuantDense whose input_quantizer "
                "produces nothing but -1 and +1, or levels m / n of 1 to 3 bits, and whose kernel_quantizer nothing "
                "but -s and +s, one s per filter" + _other_quantizers(model)
            )
        targets = [layer for layer in binary if not _is_quantized(layer)]
        if not targets:
            raise ValueError(f"all binary layers of model '{model.name}' have an accumulator_quantizer already")
        return targets
    if isinstance(layers, (str, keras.layers.Layer)):
        raise TypeError(f"layers is {layers!r}; accepted is a list of names or layers")
    targets = [_find(model, reference) for reference in layers]
    if not targets:
        raise ValueError("layers is empty; name at least one layer, or leave it out to clip all binary layers")
    for layer in targets:
        if type(layer) not in REPLACED_BY or not is_binary(layer):
            binary = binary_layers(model)
            raise ValueError(
                f"layer '{layer.name}' ({type(layer).__name__}) is not a binary QuantConv2D or QuantDense of Larq; "
                f"binary are {[path for path, other in _leaves(model) if other in binary]}"
            )
        if _is_quantized(layer):
            raise ValueError(f"layer '{layer.name}' has an accumulator_quantizer already")
    return targets


def _other_quantizers(model: keras.Model) -> str:
    """What the layers of a model quantize with that are not binary, for errors."""
    found = []
    for path, layer in _leaves(model):
        both = [getattr(layer, name, None) for name in ("input_quantizer", "kernel_quantizer")]
        if type(layer) in REPLACED_BY and any(quantizer is not None for quantizer in both):
            found.append(f"'{path}' ({' and '.join(map(_quantizer_name, both))})")
    return f"; its quantizers of inputs and kernels are other ones: {', '.join(found)}" if found else ""


def _quantizer_name(quantizer: Any) -> str:
    return getattr(quantizer, "__name__", "none" if quantizer is None else type(quantizer).__name__)


def _is_quantized(layer: Any) -> bool:
    return getattr(layer, "accumulator_quantizer", None) is not None


def _find(model: keras.Model, reference: LayerRef) -> Any:
    paths = dict(_leaves(model))
    found = [layer for path, layer in paths.items() if reference is layer or reference == path]
    if not found:
        what = repr(reference) if isinstance(reference, str) else f"the layer {getattr(reference, 'name', reference)!r}"
        raise ValueError(f"layers holds {what}, which is not in model '{model.name}'; its layers are {list(paths)}")
    return found[0]


def _refuse_other_kinds(model: keras.Model) -> None:
    """Binary layers that would silently stay unclipped are an error, unless the caller names what to clip."""
    for path, layer in _leaves(model):
        for inner in (layer, *layer.submodules):
            if (inner is layer and type(inner) in REPLACED_BY) or not is_binary(inner):
                continue
            what = f"layer '{path}' is a binary {type(layer).__name__}"
            if inner is not layer:
                what = f"layer '{path}' ({type(layer).__name__}) wraps the binary {type(inner).__name__} '{inner.name}'"
            raise ValueError(
                f"{what}, which cannot be clipped; accepted are QuantConv2D and QuantDense of larq and larq_clip "
                "themselves, not wrapped. To leave it unclipped, name the layers to clip: layers=[...]"
            )


# ---- Copying --------------------------------------------------------------------------------------------------------


def _copy(model: keras.Model, quantizers: dict[int, Any]) -> keras.Model:
    """Copy a model and its weights, giving accumulator quantizers to the layers with these ids."""
    copies: dict[int, tuple[Any, Any]] = {}

    def copy_model(original: Any) -> Any:
        copy = keras.models.clone_model(original, clone_function=copy_layer)
        if not copy.built:  # a Sequential that was given its input shape by `build` or by a call
            copy.build(original.input_shape)
        return copy

    def copy_layer(original: Any) -> Any:
        if id(original) not in copies:
            if isinstance(original, keras.Model):
                copy = copy_model(original)
            elif id(original) in quantizers:
                copy = _with_quantizer(original, quantizers[id(original)])
            else:
                copy = type(original).from_config(config_of(original))
            copies[id(original)] = (original, copy)
        return copies[id(original)][1]

    result = copy_model(model)
    pairs = [(model, result), *copies.values()]
    # Setting `trainable` of a model sets it for all its layers, so from the outside to the inside.
    for original, copy in sorted(pairs, key=lambda pair: not isinstance(pair[0], keras.Model)):
        if copy.trainable != original.trainable:
            copy.trainable = original.trainable
        if not isinstance(original, keras.Model):
            copy.set_weights(original.get_weights())
    return result


def _with_quantizer(layer: Any, quantizer: Any) -> Any:
    """The layer of `larq_clip.layers` like a binary layer, with an accumulator quantizer."""
    kind = _kind(layer)
    return copy_binary(layer, accumulator_quantizer=quantizer, scaled_kernel=kind.scaled, input_levels=kind.levels)


def _kind(layer: Any) -> BinaryKind:
    """That of a binary layer."""
    kind = binary_kind(layer)
    assert kind is not None, "only binary layers are clipped"
    return kind


__all__ = ["LayerReport", "accumulator_clips", "binary_layers", "clip_model", "quantize_model", "set_clipping"]
