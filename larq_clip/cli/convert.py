"""`larq-clip convert`: a Keras model to a .lcb file, verified before it is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from larq_clip.cli.inspect import report_option, write_report
from larq_clip.cli.load import model_options, open_model
from larq_clip.errors import VerificationError
from larq_clip.files import atomic_write, write_target


@click.command()
@model_options
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .lcb file to write.")
@click.option(
    "--verify/--no-verify", default=True, show_default=True, help="Compare every layer with Keras before writing."
)
@click.option("--samples", type=click.IntRange(1), default=2, show_default=True, help="Random images to compare on.")
@report_option
def convert(
    model: str,
    weights: str | None,
    input_shape: tuple[int, int, int] | None,
    trust: bool,
    output: Path,
    verify: bool,
    samples: int,
    report: Path | None,
) -> None:
    """Convert MODEL to a model file for the C runtime.

    MODEL is a .h5 or .keras file, a SavedModel folder, or zoo:NAME for a model of larq-zoo. Nothing is written where a
    layer of the file does not compute what Keras computes.
    """
    from rich.console import Console

    for source in (model, weights):
        require_other_file(source, output)
    write_target(output)
    with Console(stderr=True).status("loading TensorFlow and the model") as status:
        keras_model = open_model(model, weights, input_shape, trust)
        status.update("converting")
        from larq_clip.converter import convert_keras_model, verify_keras_model

        data = convert_keras_model(keras_model)
        verification = None
        if verify:
            status.update("verifying")
            try:
                verification = verify_keras_model(keras_model, data, samples=samples, constants=False).require()
            except VerificationError as error:
                raise VerificationError(f"{error}. Nothing was written; --no-verify writes the file as it is") from None
    atomic_write(output, data)
    write_report(report, data)
    weights_count = sum(int(weight.shape.num_elements()) for weight in keras_model.weights)
    click.echo(f"{output}: {len(data):,} bytes ({4 * weights_count / len(data):.1f} times smaller than float32)")
    click.echo(summary(data))
    click.echo("not verified" if verification is None else f"verified: {verification.summary()}")


def require_other_file(source: str | None, output: Path) -> None:
    """Refuse to write over what is read, or into it.

    Raises:
        click.UsageError: names both.
    """
    if source is None or not Path(source).exists():
        return
    same = output.exists() and output.samefile(source)
    inside = Path(source).is_dir() and Path(source).resolve() in output.resolve().parents
    if same or inside:
        raise click.UsageError(f"the output {output} would overwrite the input {source}; choose another path")


def summary(data: bytes) -> str:
    """How many ops of each kind a file has, in one line."""
    from larq_clip.converter import reader

    graph: Any = reader.read(data)
    counts = Counter(op.type for op in graph.ops)
    return f"{len(graph.ops)} ops: " + ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
