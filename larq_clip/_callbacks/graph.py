"""Which batch norm follows which clip, as the connections of functional and Sequential models tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from larq_clip._binary import PROBES, produces_signs
from larq_clip._keras import keras, lq
from larq_clip.models import _leaves
from larq_clip.quantizers import AccumulatorClip

POOLS = tuple(getattr(keras.layers, f"{scope}MaxPool{rank}D") for scope in ("", "Global") for rank in (1, 2, 3))
MEANS = tuple(getattr(keras.layers, f"{scope}AvgPool{rank}D") for scope in ("", "Global") for rank in (1, 2, 3))
MOVES = (keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute, keras.layers.Cropping2D)
NOISE = (keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.GaussianNoise)
PADS = (keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)
ACTIVATIONS = (keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.PReLU)

# Layers whose output lies in the range of their input.
WITHIN_RANGE = POOLS + MEANS + MOVES + NOISE + PADS
# Layers whose output has a sign where their input has that sign, element by element or the largest of several.
KEEP_SIGNS = POOLS + MOVES + NOISE


class ClippedLayer(NamedTuple):
    """A clip, its layer, and the layer's path: "outer/inner" in nested models."""

    path: str
    layer: Any
    clip: AccumulatorClip


def clipped_layers(model: keras.Model) -> list[ClippedLayer]:
    """Every clip of a model, as `larq_clip.models.accumulator_clips` names them."""
    found = []
    for path, layer in _leaves(model):
        clips = [module for module in (layer, *layer.submodules) if isinstance(module, AccumulatorClip)]
        found += [ClippedLayer(path if len(clips) == 1 else f"{path}/{c.name}", layer, c) for c in clips]
    return found


class Consumers:
    """For each layer of a model, which layers take its output; nested models are looked through.

    Models without a graph (subclassed ones) have no known consumers.
    """

    def __init__(self, model: keras.Model):
        self._direct: dict[int, list[Any]] = defaultdict(list)
        self._outer: dict[int, list[Any]] = defaultdict(list)  # from a nested model's last layer to that model
        self._collect(model)

    def _collect(self, model: Any) -> None:
        for layer in model.layers:
            if isinstance(layer, keras.Model):
                self._collect(layer)
                for last in getattr(layer, "_output_layers", ()):
                    self._outer[id(last)].append(layer)
        for nodes in getattr(model, "_nodes_by_depth", {}).values():
            for node in nodes:
                for parent, *_ in node.iterate_inbound():
                    self._direct[id(parent)].append(node.layer)

    def of(self, layer: Any) -> Iterator[Any]:
        """The consumers of a layer, models never among them, except such with several inputs."""
        for consumer in self._direct[id(layer)]:
            if isinstance(consumer, keras.Model) and len(consumer.inputs) == 1:
                for entrance in consumer._input_layers:
                    # A Sequential keeps its input layer out of sight, a nested model's nodes start from it.
                    yield from self.of(entrance)
            else:
                yield consumer
        for model in self._outer[id(layer)]:
            yield from self.of(model)

    def norm_behind(self, layer: Any, through: tuple[type, ...]) -> Any:
        """The batch norm that takes a layer's output, straight or through single layers of given types; else None."""
        following = list(self.of(layer))
        norms = [other for other in following if isinstance(other, keras.layers.BatchNormalization)]
        if norms:
            return norms[0]
        if len(following) == 1 and isinstance(following[0], through):
            return self.norm_behind(following[0], through)
        return None

    def only_signs_behind(self, layer: Any) -> bool:
        """Whether nothing of a layer's output is used but its signs."""
        following = list(self.of(layer))
        return bool(following) and all(
            _takes_signs(other) or (isinstance(other, KEEP_SIGNS) and self.only_signs_behind(other))
            for other in following
        )


def _takes_signs(layer: Any) -> bool:
    quantizer = getattr(layer, "input_quantizer", None)
    if isinstance(layer, lq.quantizers.Quantizer):
        quantizer = layer
    elif type(layer) is keras.layers.Activation:
        quantizer = layer.activation
    return quantizer is not None and produces_signs(quantizer, [PROBES[None]])
