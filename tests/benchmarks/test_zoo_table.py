"""The table of the zoo's models: made of the record, and kept up to date in the README."""

import importlib
import json
import sys

import pytest
from support import ROOT

pytestmark = pytest.mark.source


@pytest.fixture
def zoo_table(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("zoo_table")
    del sys.modules["zoo_table"]


def test_cells(zoo_table):
    row = {"file_bytes": 1050, "ideal_weight_bytes": 1000, "arena_bytes": 300, "arena_lower_bound_bytes": 200}
    rows = [
        {"model": "A", "fidelity": "plain", "exact": True, **row},
        {"model": "A", "fidelity": "integer", "exact": False, **row},
    ]
    lines = zoo_table.table(rows).splitlines()
    assert lines[0] == "| model | plain | clipped | integer |"
    assert lines[2:] == ["| A | exact, 1,050 B, 1.050, 1.50 | – | NOT exact, 1,050 B, 1.050, 1.50 |"]


def test_the_readme_has_the_recorded_table(zoo_table):
    text, made = zoo_table.README.read_text(), "Not recorded yet: `make zoo` writes this table."
    if zoo_table.RESULTS.exists():
        rows = json.loads(zoo_table.RESULTS.read_text())
        assert all(row["converts"] and row["exact"] for row in rows)
        made = zoo_table.table(rows)
    assert zoo_table.replace_table(text, "zoo", made, "README.md") == text, "run python benchmarks/zoo_table.py"
