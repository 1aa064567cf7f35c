"""`larq-clip demo`: the main job from end to end on real images."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("larq-clip-demo"),
    show_default=True,
    help="Folder for model.lcb, training.png and report.json.",
)
@click.option(
    "--full",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with the whole of Fashion-MNIST (its four IDX files) instead of the embedded subset.",
)
def demo(output: Path, full: Path | None) -> None:
    """Train a small binary network in two stages, convert it, run it on the C runtime, compare and report."""
    from larq_clip import demo as demo_module

    demo_module.run(output, full=full)
