"""The Keras model that a command names: a file, a folder, or a model of larq-zoo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from larq_clip._quiet import import_tensorflow
from larq_clip.cli.zoo import IMAGENET, PREFIX, zoo_model, zoo_objects
from larq_clip.errors import ConversionError

SUFFIXES = (".h5", ".hdf5", ".keras")


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument MODEL and the options that say how to load it."""
    decorators = (
        click.argument("model"),
        click.option(
            "--weights", help=f"Of {PREFIX}NAME: 'none' (random), 'imagenet' (the default) or a .h5 file of weights."
        ),
        click.option(
            "--input-shape",
            type=click.IntRange(1),
            nargs=3,
            metavar="H W C",
            help=f"Of {PREFIX}NAME: height, width and channels, 224 224 3 by default.",
        ),
        click.option("--trust", is_flag=True, help="Load a file although it holds code, which runs."),
    )
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def open_model(model: str, weights: str | None, input_shape: tuple[int, int, int] | None, trust: bool) -> Any:
    """The model of `model_options`.

    Raises:
        ConversionError: see `load_keras_model` and `larq_clip.cli.zoo.zoo_model`.
        click.UsageError: for options of larq-zoo with a file.
    """
    if model.startswith(PREFIX):
        import_tensorflow()
        return zoo_model(model.removeprefix(PREFIX), weights or IMAGENET, input_shape)
    if weights is not None or input_shape is not None:
        option = "--weights" if weights is not None else "--input-shape"
        raise click.UsageError(f"{option} is for {PREFIX}NAME; the file {model} has its own weights and shapes")
    return load_keras_model(Path(model), trust)


def load_keras_model(path: Path, trust: bool = False) -> Any:
    """Load a .h5 or .keras file or a SavedModel folder, with Larq's and larq_clip's layers known.

    Args:
        path: of the file or folder.
        trust: load it even where that executes code that it holds.

    Raises:
        ConversionError: where there is no such file, it holds code, or Keras cannot load it.
    """
    if not path.exists():
        raise ConversionError(
            f"{path} does not exist; accepted are a .h5 or .keras file, a SavedModel folder and {PREFIX}NAME"
        )
    if path.is_dir() and not (path / "saved_model.pb").exists():
        raise ConversionError(f"{path} is a folder without saved_model.pb, so not a SavedModel")
    if path.is_file() and path.suffix not in SUFFIXES:
        raise ConversionError(
            f"{path} has the suffix {path.suffix!r}; accepted are {', '.join(SUFFIXES)}, a folder and {PREFIX}NAME"
        )
    import_tensorflow()
    if not trust:
        _require_no_code(path)
    from larq_clip import layers, quantizers  # noqa: F401  (registers them with Keras)
    from larq_clip._keras import keras
    from larq_clip._scope import quantized_scope

    try:
        with quantized_scope():
            return keras.models.load_model(path, zoo_objects(), compile=False, safe_mode=not trust)
    except Exception as error:  # Keras raises whatever its reader meets
        reason = str(error).strip().splitlines()
        raise ConversionError(
            f"{path} cannot be loaded as a Keras model: {type(error).__name__}: {reason[0] if reason else ''}; "
            "if it needs classes or functions that neither Keras nor Larq has, nor larq-zoo where that is installed, "
            "load it in Python and give the model to larq_clip.convert_keras_model"
        ) from error


def _require_no_code(path: Path) -> None:
    from larq_clip.cli.trust import code_in_file

    try:
        found = code_in_file(path)
    except Exception as error:  # what the readers of JSON, zip and HDF5 raise on damaged files is not listed
        raise ConversionError(f"{path} cannot be loaded as a Keras model: {error or type(error).__name__}") from error
    if found:
        raise ConversionError(
            f"{path} holds code: {'; '.join(found)}. Loading it executes that code. If you trust whoever made the "
            "file, add --trust"
        )
