"""Bytes of the runtime after stripping, per target: the shared library and the program for the device.

    python benchmarks/runtime_size.py [--output benchmarks/results/runtime_size.json]

Measures what `make test-c test-aarch64` built in build/runtime-release and build/runtime-aarch64.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from machine import compiler_version, describe

ROOT = Path(__file__).parent.parent
TARGETS = {
    "x86-64": ("runtime-release", "strip", "cc"),
    "aarch64 (static program)": ("runtime-aarch64", "aarch64-linux-gnu-strip", "aarch64-linux-gnu-gcc"),
}


def stripped_bytes(path: Path, strip: str) -> int:
    """Size of a copy of `path` without symbols."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        subprocess.run([strip, "-o", str(copy), str(path)], check=True)
        return copy.stat().st_size


def main() -> None:
    """Measure every target that is built and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "runtime_size.json")
    output = parser.parse_args().output
    results = []
    for target, (folder, strip, compiler) in TARGETS.items():
        build = ROOT / "build" / folder
        results.append(
            {
                "target": target,
                "compiler": compiler_version(compiler),
                "library_bytes": stripped_bytes(build / "liblarq_clip.so", strip),
                "program_bytes": stripped_bytes(build / "larq-clip-run", strip),
            }
        )
    report = {"machine": describe(), "command": "make bench", "results": results}
    output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
