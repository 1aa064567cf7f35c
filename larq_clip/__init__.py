"""Train binary neural networks whose data stays in 8 bits, and run them, bit for bit, on a small C runtime.

Modules are imported on first use: `larq_clip.Interpreter` needs NumPy only, and TensorFlow is not loaded before
`larq_clip.layers`, `larq_clip.quantizers`, `larq_clip.models`, `larq_clip.callbacks` or `larq_clip.constraints`
is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from larq_clip._legacy_keras import choose_legacy_keras

choose_legacy_keras()

if TYPE_CHECKING:
    from larq_clip import (
        arithmetic,
        callbacks,
        constraints,
        converter,
        datasets,
        fixed_point,
        layers,
        models,
        quantizers,
    )
    from larq_clip.converter import convert_keras_model, verify_keras_model
    from larq_clip.errors import ConversionError, LarqClipError, ModelFileError, RuntimeLibraryError, VerificationError
    from larq_clip.interpreter import Interpreter

__version__ = "0.1.0"

_MODULES = (
    "arithmetic",
    "callbacks",
    "constraints",
    "converter",
    "datasets",
    "fixed_point",
    "layers",
    "models",
    "quantizers",
)
_NAMES = {
    "convert_keras_model": "larq_clip.converter",
    "Interpreter": "larq_clip.interpreter",
    "ConversionError": "larq_clip.errors",
    "LarqClipError": "larq_clip.errors",
    "ModelFileError": "larq_clip.errors",
    "RuntimeLibraryError": "larq_clip.errors",
    "VerificationError": "larq_clip.errors",
    "verify_keras_model": "larq_clip.converter",
}

__all__ = [
    "ConversionError",
    "Interpreter",
    "LarqClipError",
    "ModelFileError",
    "RuntimeLibraryError",
    "VerificationError",
    "arithmetic",
    "callbacks",
    "constraints",
    "convert_keras_model",
    "converter",
    "datasets",
    "fixed_point",
    "layers",
    "models",
    "quantizers",
    "verify_keras_model",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
