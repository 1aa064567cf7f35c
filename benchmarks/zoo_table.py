"""The table of the zoo's models in the project's README.md, from benchmarks/results/zoo.json.

    make zoo                              # records all models, then
    python benchmarks/zoo_table.py        # rewrites the table

The record is made by the tests of the zoo, with LARQ_CLIP_ALL_ZOO=1 and LARQ_CLIP_ZOO_RESULTS=FILE: a row is written
where a model converted, every layer of its file was compared with Keras, and NEON gave the outputs of this machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from readme_tables import replace_table  # noqa: E402

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results/zoo.json"
README = ROOT / "README.md"
FIDELITIES = ("plain", "clipped", "integer")


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    size, arena = row["file_bytes"] / row["ideal_weight_bytes"], row["arena_bytes"] / row["arena_lower_bound_bytes"]
    return f"{'exact' if row['exact'] else 'NOT exact'}, {row['file_bytes']:,} B, {size:.3f}, {arena:.2f}"


def table(rows: list[dict[str, Any]]) -> str:
    """A row for each model, a column for each fidelity: exact or not, bytes of the file, its ratio to the ideal and the
    arena's to its lower bound."""
    found = {(row["model"], row["fidelity"]): row for row in rows}
    lines = ["| model | " + " | ".join(FIDELITIES) + " |", "|---" * (1 + len(FIDELITIES)) + "|"]
    for model in dict.fromkeys(row["model"] for row in rows):
        lines.append(f"| {model} | " + " | ".join(_cell(found.get((model, kind))) for kind in FIDELITIES) + " |")
    return "\n".join(lines)


def main() -> None:
    """Bring the README up to date."""
    made = table(json.loads(RESULTS.read_text()))
    README.write_text(replace_table(README.read_text(), "zoo", made, README))


if __name__ == "__main__":
    main()
