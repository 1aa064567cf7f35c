"""What a recorded result says of where it was measured."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

from larq_clip._machine import processor_name


def compiler_version(compiler: str) -> str:
    """First line that ``compiler --version`` prints."""
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def commit() -> str:
    """Commit of the source tree, with ``-dirty`` where files that it tracks differ."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--match=no-tag"]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()


def describe() -> dict[str, object]:
    """Processor, cores, system, Python and date (UTC)."""
    return {
        "cpu": processor_name() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
