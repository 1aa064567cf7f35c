"""Errors meant for users: one line that names what is wrong, the value received, what is accepted and what to do."""

from __future__ import annotations


class LarqClipError(Exception):
    """Base class; the command line prints its message and exits with 2."""


class ConversionError(LarqClipError, ValueError):
    """A Keras model, or a layer of it, that cannot be converted."""


class VerificationError(LarqClipError, ValueError):
    """A model file that does not compute what its Keras model computes."""


class ModelFileError(LarqClipError, ValueError):
    """Bytes that are not a valid .lcb model."""


class RuntimeLibraryError(LarqClipError, RuntimeError):
    """The C runtime refused to do something, or is missing."""
