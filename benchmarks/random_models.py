"""Random Keras models, converted and compared with Keras layer by layer: a thousand, recorded once.

    make random-models                              # or
    python benchmarks/random_models.py --models 1000 --work build/random_models

The models are those of tests/converter/test_random_models.py, in portions of 100 that each are a process; portion k has
seed k. Every portion leaves a file in --work: interrupted, the command goes on behind the last one, and repeats those
that found a failure.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import machine  # noqa: E402

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results/random_models.json"
TEST = ROOT / "tests/converter/test_random_models.py"
PORTION = 100


def run_portion(seed: int, models: int, path: Path) -> dict[str, Any]:
    """Run the test on the models of one seed, and write to ``path`` what it counted, the commit and the machine.

    A process that ends without having counted, of a crash say, is one failure.
    """
    path.unlink(missing_ok=True)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    numbers = {"MODELS": str(models), "SEED": str(seed), "RESULTS": str(partial.resolve())}
    settings = {f"LARQ_CLIP_RANDOM_{name}": value for name, value in numbers.items()}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(TEST)]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True)
    if partial.exists():
        portion = json.loads(partial.read_text())
        partial.unlink()
    else:
        failure = f"seed {seed}: pytest ended with {ended.returncode} and counted nothing: {ended.stdout[-2000:]}"
        portion = {"models": 0, "failures": [failure], "seconds": 0.0, "layers": {}}
    portion = {"seed": seed, **portion, "commit": machine.commit(), "machine": machine.describe()}
    path.write_text(json.dumps(portion, indent=2) + "\n")
    return portion


def summarize(portions: list[dict[str, Any]], command: str) -> dict[str, Any]:
    """The record: models tried, how many were exact, what the others said, seconds and layers of each type."""
    layers: collections.Counter[str] = collections.Counter()
    commits: collections.Counter[str] = collections.Counter()
    for portion in portions:
        layers.update(portion["layers"])
        commits[portion["commit"]] += portion["models"]
    failures = [failure for portion in portions for failure in portion["failures"]]
    models = sum(portion["models"] for portion in portions)
    return {
        "machine": portions[-1]["machine"],
        "command": command,
        "models_of_commit": dict(commits),
        "models": models,
        "exact": models - sum(len(portion["failures"]) for portion in portions if portion["models"]),
        "failures": failures,
        "seconds": round(sum(portion["seconds"] for portion in portions), 1),
        "layers": dict(sorted(layers.items())),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--work", type=Path, default=ROOT / "build/random_models", help="folder of the portions")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the record")
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    portions = []
    for seed in range(-(-given.models // PORTION)):
        models = min(PORTION, given.models - seed * PORTION)
        path = given.work / f"{seed}_{models}.json"
        portion = json.loads(path.read_text()) if path.exists() else None
        if portion is None or portion["failures"]:
            portion = run_portion(seed, models, path)
        portions.append(portion)
        print(f"seed {seed}: {portion['models']} models, {len(portion['failures'])} failures, {portion['seconds']} s")
        sys.stdout.flush()
    record = summarize(portions, f"python benchmarks/random_models.py --models {given.models}")
    given.output.write_text(json.dumps(record, indent=2) + "\n")
    for failure in record["failures"]:
        print(failure, file=sys.stderr)
    return bool(record["failures"])


if __name__ == "__main__":
    sys.exit(main())
