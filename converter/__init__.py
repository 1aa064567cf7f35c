"""Converts Keras models to .lcb files: import → lower → write. Only `keras_importer` needs TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from larq_clip.converter.verification import Verification


def convert_keras_model(model: Any) -> bytes:
    """The .lcb file of a Keras 2 model with Larq or larq_clip layers, as bytes.

    The model's weights and its clips' state are taken as they are now. What the file computes equals the Keras layers,
    executed one by one as in ``model(images, training=False)``, bit for bit in all signs and integers, and up to
    float32 rounding in the outputs. A sign after float32 layers whose sums round (an input or weights that are not
    dyadic, a batch norm before an average pool) may differ where the sum is near zero.

    Models of `larq_clip.models.quantize_model` with ``float_layers="int8"`` become files of integers between input and
    outputs, and their outputs, which Keras may give in float64, equal those rounded once to float32.

    ``model.predict`` computes the same, with one exception: TensorFlow's graph optimizer merges a convolution that has
    neither bias nor clip with the batch norm that directly follows it, and the merged kernel rounds differently. A sign
    may then differ where the batch norm's output is 0 up to rounding. To rule it out:
    ``tf.config.optimizer.set_experimental_options({"remapping": False})`` before predicting.

    Args:
        model: a built `tf.keras.Sequential` or functional `tf.keras.Model`.

    Raises:
        larq_clip.ConversionError: names the layer that cannot be converted, why, and what to do.
    """
    from larq_clip.converter import keras_importer, pipeline, spec, writer
    from larq_clip.errors import ConversionError

    try:
        return writer.write(pipeline.lower(keras_importer.import_model(model)))
    except spec.SpecError as error:
        raise ConversionError(
            f"model {model.name!r} does not fit the file format: {error}; make that layer smaller, or, where its sizes "
            "are ordinary, report a bug of larq_clip"
        ) from error


def verify_keras_model(
    model: Any, file: bytes | str | os.PathLike, images: Any = None, *, samples: int = 4, constants: bool = True
) -> Verification:
    """Compare every layer of a model file, on the C runtime, with the Keras model that it was made from.

    Bits and integers must be equal, float32 within what rounding explains; `larq_clip.converter.verify` says how.

    Args:
        model: the Keras model.
        file: path or bytes of the .lcb file.
        images: array ``(images, *input shape)``, a list of arrays for several inputs; random ones where None.
        samples: how many random images.
        constants: whether the file's constants are compared too with those that the model gives now.

    Returns:
        What was compared, and the first `mismatch` if any; its method `require` raises that.

    Raises:
        larq_clip.VerificationError: where the file was made from another model.
        larq_clip.ConversionError: where the model is one that cannot be converted.
        larq_clip.ModelFileError: where the file is none of a model.
    """
    from larq_clip.converter import verify
    from larq_clip.converter.keras_importer.reference import KerasReference

    reference = KerasReference(model)
    shapes = [reference.graph.tensors[name].shape for name in reference.graph.inputs]
    if images is None:
        images = [random_images(samples, shape) for shape in shapes]
    elif not isinstance(images, (list, tuple)):
        images = [images]
    data = file if isinstance(file, bytes) else Path(file).read_bytes()
    return verify.verify(reference, data, images, constants=constants)


def random_images(count: int, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """Images ``(count, *shape)`` for a check: normally distributed, and uniform in [-1, 1], in turn."""
    rng = np.random.default_rng(seed)
    images = [rng.normal(size=shape) if i % 2 == 0 else rng.uniform(-1, 1, shape) for i in range(count)]
    return np.asarray(images, np.float32).reshape(count, *shape)
