"""`larq-clip verify`: whether a .lcb file computes, layer by layer, what its Keras model computes."""

from __future__ import annotations

from pathlib import Path

import click

from larq_clip.cli.load import model_options, open_model
from larq_clip.cli.run import load_npy
from larq_clip.errors import ModelFileError


@click.command()
@model_options
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "input_paths",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Images, .npy; once for each input of the model. Random ones where left out.",
)
@click.option("--samples", type=click.IntRange(1), default=4, show_default=True, help="How many images to compare on.")
def verify(
    model: str,
    weights: str | None,
    input_shape: tuple[int, int, int] | None,
    trust: bool,
    file: Path,
    input_paths: tuple[Path, ...],
    samples: int,
) -> None:
    """Run MODEL in Keras and FILE (.lcb) on the C runtime, layer by layer, and name the first value that differs.

    MODEL is what FILE was converted from. Bits and integers must be equal, float32 within what rounding explains. Exit
    code 0 where they are, 2 where not.
    """
    from rich.console import Console

    from larq_clip.converter import reader

    data = file.read_bytes()
    try:
        reader.read(data)
    except ModelFileError as error:
        raise ModelFileError(f"{file}: {error}") from error
    images = [load_npy(path)[:samples] for path in input_paths] or None
    with Console(stderr=True).status("loading TensorFlow and the model") as status:
        keras_model = open_model(model, weights, input_shape, trust)
        status.update("verifying")
        from larq_clip.converter import verify_keras_model

        verification = verify_keras_model(keras_model, data, images, samples=samples).require()
    click.echo(f"{file} computes what {model} computes, layer by layer: {verification.summary()}")
    for line in verification.details():
        click.echo(line)
