"""Converts Keras models to .lcb files: import → lower → write. Only `keras_importer` needs TensorFlow."""

from __future__ import annotations

from typing import Any


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
