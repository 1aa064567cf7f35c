"""Files with wrong constants, and models as if trained, for the tests of verification."""

from __future__ import annotations

import dataclasses

import numpy as np

from larq_clip.converter import ir, reader, writer


def changed(data: bytes, op_type: str, number: int, **changes) -> tuple[bytes, str]:
    """The file with fields of its n-th op of a type changed by functions, and that op's name."""
    graph = reader.read(data)
    op = [op for op in graph.ops if op.type == op_type][number]
    new = dataclasses.replace(op, **{field: change(getattr(op, field)) for field, change in changes.items()})
    ops = [new if other is op else other for other in graph.ops]
    return writer.write(ir.Graph.build(graph.name, graph.tensors.values(), ops, graph.inputs, graph.outputs)), op.name


def at(place, change):
    """A change of an array at one place."""

    def apply(array):
        array = array.copy()
        array[place] = change(array[place])
        return array

    return apply


def as_if_trained(model):
    """Batch norms that fit random images, and scales of both signs."""
    from larq_clip._keras import keras
    from larq_clip.converter import random_images

    rng = np.random.default_rng(0)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    model(random_images(16, tuple(model.input_shape[1:]), seed=9), training=True)
    for norm in norms:
        norm.gamma.assign(rng.uniform(0.5, 2, norm.gamma.shape) * rng.choice([-1, 1], norm.gamma.shape))
    return model
