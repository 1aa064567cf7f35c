"""Chooses Keras 2 for TensorFlow, as Larq needs; to be run before TensorFlow is imported. Imports no TensorFlow."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys

VARIABLE = "TF_USE_LEGACY_KERAS"


def choose_legacy_keras() -> None:
    """Set TF_USE_LEGACY_KERAS=1 where that is what it takes for ``tf.keras`` to be Keras 2.

    Does nothing where TensorFlow is imported already (too late), where the variable is set already (the user's choice)
    and where ``keras`` itself is version 2 without tf-keras beside it (TensorFlow 2.15; setting it would break that).
    """
    if "tensorflow" in sys.modules or VARIABLE in os.environ:
        return
    if importlib.util.find_spec("tf_keras") is None and _keras_version().startswith("2."):
        return
    os.environ[VARIABLE] = "1"


def _keras_version() -> str:
    try:
        return importlib.metadata.version("keras")
    except importlib.metadata.PackageNotFoundError:
        return ""
