"""Copies of layers, which get the weights of the original."""

from __future__ import annotations

from typing import Any

from larq_clip._binary import REPLACED_BY
from larq_clip._keras import keras, lq


def config_of(layer: Any) -> dict[str, Any]:
    """The config of a layer, with zeros for initializers that are plain functions.

    Keras saves those by a name under which it does not find them again (QuickNet's blur pool, for one), and whoever has
    the weights needs no initializer. That of a batch norm has `synchronized`, which Keras 2 leaves out.
    """
    functions = {
        name: value
        for name, value in vars(layer).items()
        if name.endswith("_initializer") and callable(value) and not isinstance(value, keras.initializers.Initializer)
    }
    try:
        for name in functions:
            setattr(layer, name, keras.initializers.Zeros())
        config = layer.get_config()
    finally:
        for name, value in functions.items():
            setattr(layer, name, value)
    if type(layer) is keras.layers.BatchNormalization and layer.synchronized:
        config["synchronized"] = True
    return config


def without_mixed_precision(config: Any) -> Any:
    """A config, and those in it, with float32 in place of mixed-precision policies, whose sums are not exact."""
    if isinstance(config, (list, tuple)):
        return [without_mixed_precision(value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "Policy" and config.get("config", {}).get("name", "").startswith("mixed_"):
        return "float32"
    return {key: without_mixed_precision(value) for key, value in config.items()}


def copy_binary(layer: Any, **changes: Any) -> Any:
    """A layer of `larq_clip.layers` like a binary one, not built; `changes` are arguments that differ."""
    config = {**config_of(layer), **changes}
    # Plain functions as quantizers need not be known to Keras by name; they are handed on.
    for key in ("input_quantizer", "kernel_quantizer"):
        if not isinstance(getattr(layer, key), keras.layers.Layer):
            config[key] = getattr(layer, key)
    # Larq keeps a quantizer's metrics out of its config.
    metrics = getattr(layer.kernel_quantizer, "_custom_metrics", None) or ()
    with lq.context.metrics_scope(metrics):
        return REPLACED_BY[type(layer)].from_config(config)


__all__ = ["config_of", "copy_binary", "without_mixed_precision"]
