"""`larq-clip convert`: a saved Keras model to a .lcb file."""

from __future__ import annotations

from pathlib import Path

import click

from larq_clip._quiet import import_tensorflow
from larq_clip.errors import ConversionError
from larq_clip.files import atomic_write, write_target


def load_keras_model(path: Path):
    """Load a .h5 or .keras file or a SavedModel folder, with Larq's and larq_clip's layers known.

    Raises:
        ConversionError: where there is no such file, or Keras cannot load it.
    """
    if not path.exists():
        raise ConversionError(f"{path} does not exist; accepted are a .h5 or .keras file and a SavedModel folder")
    if path.is_dir() and not (path / "saved_model.pb").exists():
        raise ConversionError(f"{path} is a folder without saved_model.pb, so not a SavedModel")
    if path.is_file() and path.suffix not in (".h5", ".hdf5", ".keras"):
        raise ConversionError(f"{path} has the suffix {path.suffix!r}; accepted are .h5, .hdf5, .keras and a folder")
    import_tensorflow()
    from larq_clip import layers, quantizers  # noqa: F401  (registers them with Keras)
    from larq_clip._keras import keras

    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever its reader meets
        reason = str(error).strip().splitlines()
        raise ConversionError(
            f"{path} cannot be loaded as a Keras model: {type(error).__name__}: {reason[0] if reason else ''}"
        ) from error


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .lcb file to write.")
def convert(model: Path, output: Path) -> None:
    """Convert MODEL, a .h5 or .keras file or a SavedModel folder, to a model file for the C runtime."""
    from rich.console import Console

    console = Console(stderr=True)
    write_target(output)
    with console.status("loading TensorFlow and the model") as status:
        keras_model = load_keras_model(model)
        status.update("converting")
        from larq_clip.converter import convert_keras_model

        data = convert_keras_model(keras_model)
    atomic_write(output, data)
    weights = sum(int(weight.shape.num_elements()) for weight in keras_model.weights)
    click.echo(f"{output}: {len(data):,} bytes ({4 * weights / len(data):.1f} times smaller than float32)")
