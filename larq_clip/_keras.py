"""The TensorFlow, Keras 2 and Larq that every other module here uses: ``from larq_clip._keras import keras, lq, tf``.

Larq is written for Keras 2. From TensorFlow 2.16 on ``tf.keras`` is Keras 3 unless TF_USE_LEGACY_KERAS=1 is set before
TensorFlow is imported and the package tf-keras is installed. That is arranged here, or said.

Raises:
    ImportError: where ``tf.keras`` is Keras 3, or no Keras can be imported; it says what to do.
"""

from __future__ import annotations

import os
import sys

from larq_clip._legacy_keras import VARIABLE, choose_legacy_keras

_tensorflow_came_first = "tensorflow" in sys.modules
choose_legacy_keras()

import tensorflow as tf  # noqa: E402


def _tensorflow_version() -> str:
    return getattr(tf, "__version__", "of unknown version")


def _install_line() -> str:
    release = ".".join(_tensorflow_version().split(".")[:2])
    return f"pip install 'tf-keras~={release}.0'"


def _require_keras_2() -> None:
    setting = f"{VARIABLE}={os.environ[VARIABLE]}" if VARIABLE in os.environ else f"{VARIABLE} is not set"
    try:
        version = getattr(tf.keras, "__version__", "2")  # not every Keras 2 has one
    except ImportError as error:
        raise ImportError(
            f"TensorFlow {_tensorflow_version()} found no Keras 2 ({setting}): the package tf-keras is not installed. "
            f"Run: {_install_line()}  (with TensorFlow 2.15, whose own Keras is version 2, it is enough to unset "
            f"{VARIABLE})"
        ) from error
    if not version.startswith("3"):
        return
    if _tensorflow_came_first:
        raise ImportError(
            f"TensorFlow {_tensorflow_version()} was imported before larq_clip and uses Keras {version} ({setting}); "
            f"larq_clip and Larq need Keras 2. Either write 'import larq_clip' above the first import of tensorflow, "
            f"keras or larq, or set the environment variable {VARIABLE}=1 before Python starts; the package tf-keras "
            f"must be installed: {_install_line()}"
        )
    raise ImportError(
        f"TensorFlow {_tensorflow_version()} uses Keras {version} ({setting}); larq_clip and Larq need Keras 2. "
        f"Set the environment variable {VARIABLE}=1; the package tf-keras must be installed: {_install_line()}"
    )


_require_keras_2()
keras = tf.keras

import larq as lq  # noqa: E402  (with Keras 3 it would fail first, and say nothing useful)

__all__ = ["keras", "lq", "tf"]
