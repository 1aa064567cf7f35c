"""The README's example runs as it is printed, and stays short."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
EXAMPLE = re.compile(r"<!-- executed by tests/test_readme.py -->\n```python\n(.*?)```", re.DOTALL)

# Printed after the example, in the same process: does the runtime repeat the Keras model's predictions?
CHECK = """
import numpy
keras_predictions = model.predict(x_test, verbose=0)
numpy.save("agreement.npy", keras_predictions.argmax(1) == predictions.argmax(1))
numpy.save("correct.npy", predictions.argmax(1) == y_test)
"""


def test_example_of_the_readme_runs(tmp_path):
    examples = EXAMPLE.findall((ROOT / "README.md").read_text())
    assert len(examples) == 1
    code = examples[0]
    assert len(code.splitlines()) < 25
    run = subprocess.run([sys.executable, "-c", code + CHECK], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    assert (tmp_path / "model.lcb").stat().st_size > 1000
    assert np.load(tmp_path / "agreement.npy").mean() == 1
    assert np.load(tmp_path / "correct.npy").mean() > 0.7
