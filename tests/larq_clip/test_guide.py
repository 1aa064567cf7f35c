"""The user guide's Python runs as printed, in one process, and what it says about the results is so."""

from __future__ import annotations

import ast
import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

import larq_clip

GUIDE = Path(__file__).parent.parent.parent / "larq_clip" / "README.md"
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.source


def test_snippets_run(tmp_path):
    snippets = SNIPPET.findall(GUIDE.read_text())
    assert len(snippets) == 12
    run = subprocess.run([sys.executable, "-c", "".join(snippets)], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    names, steps, saturation, *shares = run.stdout.splitlines()
    assert names == "['conv', 'dense']"
    assert set(ast.literal_eval(steps)) == {"conv", "dense"}
    assert re.fullmatch(r"\[nan, nan, 0\.\d+(e-\d+)?, 0\.\d+(e-\d+)?\]", saturation)
    assert [line.split()[:2] for line in shares] == [["1", "conv"], ["1", "dense"], ["3", "conv"], ["3", "dense"]]
    assert [line.split()[2] for line in shares[2:]] == ["1", "1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "backup",
        "model.keras",
        "model.lcb",
        "saturation",
        "saturation.csv",
    ]
    assert len(list((tmp_path / "saturation").glob("*.png"))) == 2
    with (tmp_path / "saturation.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 3


def test_names_exist():
    for module, name in set(re.findall(r"larq_clip\.(\w+)\.(\w+)", GUIDE.read_text())):
        assert hasattr(getattr(larq_clip, module), name), (module, name)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", GUIDE.read_text()):
        assert (GUIDE.parent / target).exists(), target
