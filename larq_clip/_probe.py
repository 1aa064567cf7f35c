"""Values of a model's inner tensors, a few images at a time, since all layers' are held at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from larq_clip._keras import keras, tf
from larq_clip._scope import quantized_scope

CHUNK = 8  # images


def chunks(batches: list[Any]) -> Iterator[Any]:
    for batch in batches:
        size = int(np.shape(tf.nest.flatten(batch)[0])[0])
        for start in range(0, size, CHUNK):
            yield tf.nest.map_structure(lambda a, s=start: tf.convert_to_tensor(a[s : s + CHUNK]), batch)


def outputs(model: keras.Model, inputs: Any) -> list[Any]:
    with quantized_scope():
        found = model(inputs, training=False)
    return list(found) if isinstance(found, (list, tuple)) else [found]


__all__ = ["chunks", "outputs"]
