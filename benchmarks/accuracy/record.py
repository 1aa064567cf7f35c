"""Gather what `train.py` left in its work folder into benchmarks/results/accuracy.json.

    python benchmarks/accuracy/record.py [--work build/accuracy] [--output benchmarks/results/accuracy.json]

Each element of the list is one step of one seed: experiment, model, width, dataset, variant, seed, epochs, accuracy,
images, test_images, machine, date, command and what the step found besides (see `train.STEPS`); of trainings `curve`,
training loss and accuracy by epoch.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from larq_clip.files import atomic_write  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks/results/accuracy.json"


def gather(work: Path) -> list[dict[str, Any]]:
    """The records of all steps, by experiment, seed and time."""
    found = []
    for path in sorted(work.glob("*/seed*/*.json"), key=lambda p: (p.parent, p.stat().st_mtime)):
        record = json.loads(path.read_text())
        record["date"] = record["machine"].pop("date")
        record["command"] = (
            f"python benchmarks/accuracy/train.py benchmarks/accuracy/configs/{record['experiment']}.json "
            f"--seed {record['seed']} --steps {record['variant']} --threads 1 --data-dir DIR"
        )
        curve = path.with_suffix(".csv")
        if curve.is_file():
            rows = [line.split(",") for line in curve.read_text().splitlines()]
            record["curve"] = [[float(loss), float(accuracy)] for _, loss, accuracy in rows]
        found.append(record)
    return found


def merge(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All records; of one step of one seed the newer."""
    table = {(r["experiment"], r["seed"], r["variant"]): r for r in [*old, *new]}
    return sorted(table.values(), key=lambda r: (r["experiment"], r["seed"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/accuracy"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    old = json.loads(arguments.output.read_text()) if arguments.output.is_file() else []
    records = merge(old, gather(arguments.work))
    atomic_write(arguments.output, json.dumps(records, indent=1).encode() + b"\n")
    print(f"{len(records)} records in {arguments.output}")


if __name__ == "__main__":
    main()
