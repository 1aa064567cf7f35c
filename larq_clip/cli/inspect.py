"""`larq-clip inspect`: what a .lcb file holds and which kernels will execute it here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from larq_clip.cli.text import layers_in_words, printable
from larq_clip.errors import ModelFileError
from larq_clip.files import atomic_write


def describe_file(path: Path) -> dict[str, Any]:
    """`larq_clip.converter.report.describe`, and of each op the kernel that executes it on this machine.

    The keys are stable and listed in the converter's README.md.
    """
    try:
        return {"file": str(path), **describe_bytes(path.read_bytes())}
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error


def describe_bytes(data: bytes) -> dict[str, Any]:
    """What `describe_file` says of a file's bytes."""
    from larq_clip.converter import report
    from larq_clip.interpreter import Interpreter

    description = report.describe(data)
    interpreter = Interpreter(data)
    for op, running in zip(description["ops"], interpreter.ops(), strict=True):
        op["kernel"] = running.kernel
    return {**description, "isa": interpreter.isa, "session_bytes": interpreter.session_bytes}


# Option of `larq-clip convert`.
report_option = click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for a page, index.html, on what became of each layer.",
)


def write_report(folder: Path | None, data: bytes) -> None:
    """Write index.html on the bytes of a model file into a folder, if one is given; it is made where there is none.

    Raises:
        OSError: where that is not possible.
    """
    if folder is None:
        return
    from larq_clip.converter import html_report

    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "index.html", html_report.render(data, describe_bytes(data)).encode())


# Columns of numbers, by their key in the description.
NUMBERS = {
    "binary_macs": "binary MACs",
    "int8_macs": "int8 MACs",
    "float_macs": "float MACs",
    "weight_bytes": "weight bytes",
}


def _macs(description: dict[str, Any]) -> str:
    names = {"binary_macs": "binary", "int8_macs": "int8", "float_macs": "float32"}
    return ", ".join(f"{description[key]:,} {name}" for key, name in names.items())


def _tensors(tensors: list[dict[str, Any]]) -> str:
    return ", ".join(f"{tensor['dtype']} {'x'.join(map(str, tensor['shape']))}" for tensor in tensors)


def _details(op: dict[str, Any]) -> str:
    """Epilogue, clip, steps, stores and thresholds of an op in a few words."""
    words = []
    if op["clip_limit"]:
        words.append(f"clip ±{op['clip_limit']}" + (f" step {op['step']:g}" if op["step"] != 1 else ""))
    if op["threshold_dtype"]:
        words.append(f"{op['threshold_dtype']} thresholds")
    if op["constant_channels"]:
        words.append(f"{op['constant_channels']:.0%} constant")
    if op["fixed_point"]:
        words.append(", ".join(op["fixed_point"]))
    elif not words and op["epilogue"]:
        words.append(op["epilogue"].lower())
    return ", ".join(words)


def _compared(description: dict[str, Any], bytes_key: str, least_key: str, ratio_key: str, words: str) -> str:
    """Bytes, and how they compare with the least that they could be."""
    text = f"{description[bytes_key]:,} bytes"
    if description[ratio_key] is None:
        return text
    return f"{text}, {description[ratio_key]:.3f} times the {description[least_key]:,} {words}"


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON; the keys are stable.")
def inspect(model: Path, as_json: bool) -> None:
    """Show the layers of MODEL (.lcb): kernels, types, multiply-accumulates, bytes."""
    description = describe_file(model)
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    title = f"{model}: {description['name']}, written by {description['producer']}"
    table = Table(title=Text(printable(title)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("op", "layers", "kernel", "output", "epilogue", *NUMBERS.values()):
        table.add_column(heading, justify="right" if heading.endswith(("MACs", "bytes")) else "left", no_wrap=True)
    for op in description["ops"]:
        numbers = (f"{op[key]:,}" if op[key] else "" for key in NUMBERS)
        table.add_row(
            op["type"], Text(layers_in_words(op["name"])), op["kernel"], _tensors(op["outputs"]), _details(op), *numbers
        )
    # A table cut off at the terminal's edge hides what was asked for; a long line does not.
    wide = Console(width=1000)
    console = Console(width=Measurement.get(wide, wide.options, table).maximum)
    console.print(table)
    for label, value in (
        ("input", _tensors(description["inputs"])),
        ("output", _tensors(description["outputs"])),
        ("multiply-accumulates", _macs(description)),
        ("file", _compared(description, "file_bytes", "ideal_weight_bytes", "size_ratio", "of weights, unpadded")),
        ("weights", f"{description['weight_bytes']:,} bytes"),
        (
            "activation arena",
            _compared(description, "arena_bytes", "arena_lower_bound_bytes", "arena_ratio", "live at once"),
        ),
        ("session", f"{description['session_bytes']:,} bytes with one thread ({description['isa']})"),
    ):
        console.print(f"{label + ':':22}{value}", highlight=False)
