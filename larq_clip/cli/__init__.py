"""The command `larq-clip`. TensorFlow is imported by `convert`, `verify` and `demo` alone."""

from __future__ import annotations

import sys

import click

import larq_clip
from larq_clip.cli.benchmark import benchmark
from larq_clip.cli.convert import convert
from larq_clip.cli.demo import demo
from larq_clip.cli.inspect import inspect
from larq_clip.cli.run import run
from larq_clip.cli.text import printable
from larq_clip.cli.verify import verify
from larq_clip.errors import LarqClipError

USER_ERROR = 2
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(larq_clip.__version__, prog_name="larq-clip")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Binary neural networks whose data stays in 8 bits: convert, verify, inspect, run and measure them."""


cli.add_command(convert)
cli.add_command(verify)
cli.add_command(run)
cli.add_command(inspect)
cli.add_command(benchmark)
cli.add_command(demo)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: an error is one line on standard error and exit code 2, a traceback only with --debug."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(arguments, prog_name="larq-clip", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = USER_ERROR
    except (click.Abort, KeyboardInterrupt):
        code = fail("interrupted", INTERRUPTED)
    except click.ClickException as error:
        code = fail(error.format_message())
    except (LarqClipError, OSError, ValueError, ImportError, MemoryError) as error:
        if "--debug" in arguments:
            raise
        code = fail(str(error) or type(error).__name__)
    sys.exit(code)


def fail(message: str, code: int = USER_ERROR) -> int:
    """Print the message as one line and return the exit code."""
    click.echo("larq-clip: error: " + printable(" ".join(message.split())), err=True)
    return code
