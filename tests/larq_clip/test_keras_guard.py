"""Keras 2 is arranged for, or its absence is said: in fresh processes, since TensorFlow is imported once only."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import pytest

from larq_clip import _legacy_keras

KERAS_IS_2 = importlib.metadata.version("keras").startswith("2.")
HAS_TF_KERAS = importlib.util.find_spec("tf_keras") is not None
HIDE_TF_KERAS = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] == "tf_keras" else find(name, *rest)
"""


def run(program, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_larq_clip_first_gives_keras_2_and_loads_no_tensorflow_before_it_is_needed():
    code, out, err = run(
        "import sys, larq_clip; assert 'tensorflow' not in sys.modules\n"
        "import larq_clip.layers, tensorflow as tf\n"
        "print(tf.keras.layers.Dense.__module__.split('.')[0], issubclass(larq_clip.layers.QuantDense, "
        "tf.keras.layers.Dense))"
    )
    assert code == 0, err
    assert out.split() == ["tf_keras" if HAS_TF_KERAS else "keras", "True"]


def test_keras_3_first_says_what_to_do():
    program = (
        "import tensorflow as tf; print(tf.keras.layers.Dense)\n"
        "try:\n    import larq_clip.layers\nexcept ImportError as error:\n    print('REFUSED', error)"
    )
    code, out, err = run(program)
    assert code == 0, err
    if KERAS_IS_2:
        assert "REFUSED" not in out
        return
    message = out[out.index("REFUSED") :]
    for part in (
        "was imported before larq_clip and uses Keras 3",
        "TF_USE_LEGACY_KERAS is not set",
        "write 'import larq_clip' above the first import of tensorflow",
        "set the environment variable TF_USE_LEGACY_KERAS=1 before Python starts",
        "pip install 'tf-keras~=2.",
    ):
        assert part in message, message


def test_tensorflow_first_with_the_variable_set_is_fine():
    if not HAS_TF_KERAS:
        return
    code, _, err = run("import tensorflow, larq_clip.layers", TF_USE_LEGACY_KERAS="1")
    assert code == 0, err


def test_keras_3_chosen_by_the_user_is_refused():
    code, _, err = run("import larq_clip.layers", TF_USE_LEGACY_KERAS="0")
    if KERAS_IS_2:
        assert code == 0, err
    else:
        assert code == 1
        assert "uses Keras 3" in err and "TF_USE_LEGACY_KERAS=0" in err and "Set the environment variable" in err


def test_missing_tf_keras_is_said():
    code, _, err = run(HIDE_TF_KERAS + "import larq_clip.layers", TF_USE_LEGACY_KERAS="1")
    assert code == 1
    assert "the package tf-keras is not installed. Run: pip install 'tf-keras~=2." in err


@pytest.mark.parametrize(
    "has_tf_keras, keras_version, expected",
    [(True, "3.12.0", "1"), (True, "2.15.0", "1"), (False, "2.15.0", None), (False, "3.12.0", "1"), (False, "", "1")],
)
def test_the_variable_is_set_where_it_helps(monkeypatch, has_tf_keras, keras_version, expected):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if has_tf_keras else None)
    monkeypatch.setattr(_legacy_keras, "_keras_version", lambda: keras_version)
    _legacy_keras.choose_legacy_keras()
    assert os.environ.get("TF_USE_LEGACY_KERAS") == expected


def test_the_users_choice_stays(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    _legacy_keras.choose_legacy_keras()
    assert os.environ["TF_USE_LEGACY_KERAS"] == "0"


def test_nothing_is_set_once_tensorflow_is_imported(monkeypatch):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    _legacy_keras.choose_legacy_keras()
    assert "TF_USE_LEGACY_KERAS" not in os.environ
