"""`larq-clip run`: execute a .lcb file on this machine."""

from __future__ import annotations

import io
import json
import statistics
import time
import warnings
from pathlib import Path

import click
import numpy as np

from larq_clip._native import ISAS
from larq_clip.cli.text import printable
from larq_clip.files import atomic_write, write_target
from larq_clip.interpreter import Interpreter


def load_npy(path: Path) -> np.ndarray:
    """Read one array from a .npy file; object arrays, which would execute code, are refused.

    Raises:
        ValueError: where it is not such a file.
    """
    file = io.BytesIO(path.read_bytes())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a header is of Python 2
            return np.lib.format.read_array(file, allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:  # NumPy parses the header as Python, and raises whatever that meets
        raise ValueError(f"{path} is not a .npy file of numbers: {error}") from error


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--input", "input_path", type=click.Path(path_type=Path), required=True, help="Images, .npy.")
@click.option("--output", type=click.Path(path_type=Path), help="Where to write the results, .npy.")
@click.option("--repeat", type=click.IntRange(1), default=1, show_default=True, help="Run the images so many times.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--isa", type=click.Choice(ISAS), default="auto", show_default=True, help="Instruction set.")
@click.option("--memory-limit", type=click.IntRange(1), help="Refuse a model that needs more bytes of session memory.")
@click.option("--profile", is_flag=True, help="Print the time of every op.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def run(
    model: Path,
    input_path: Path,
    output: Path | None,
    repeat: int,
    threads: int,
    isa: str,
    memory_limit: int | None,
    profile: bool,
    as_json: bool,
) -> None:
    """Run the images of a .npy file through MODEL (.lcb). The device's own program is larq-clip-run."""
    images = load_npy(input_path)
    if output is not None:
        write_target(output)
    interpreter = Interpreter(model, num_threads=threads, isa=isa, profile=profile, memory_limit=memory_limit)
    if output is not None and len(interpreter.outputs) != 1:
        raise ValueError(
            f"{model} has {len(interpreter.outputs)} outputs; a .npy file holds one: use larq_clip.Interpreter"
        )
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = interpreter.predict(images)
        seconds.append(time.perf_counter() - start)
    if output is not None:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, result, allow_pickle=False)
        atomic_write(output, buffer.getvalue())
    report = {
        "images": len(images),
        "milliseconds_per_image": 1e3 * statistics.median(seconds) / max(1, len(images)),
        "isa": interpreter.isa,
        "threads": threads,
        "session_bytes": interpreter.session_bytes,
    }
    if profile:
        report["ops"] = [vars(op) for op in interpreter.ops()]
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    click.echo(
        f"{report['images']} images, {report['milliseconds_per_image']:.3f} ms each "
        f"({interpreter.isa}, {threads} thread{'s' if threads > 1 else ''})"
    )
    if profile:
        for op in interpreter.ops():
            click.echo(f"{op.nanoseconds / 1e3:10.1f} us  {op.kernel:24} {printable(op.name)}")
