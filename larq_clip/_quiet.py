"""Import TensorFlow without the lines that its C++ libraries write to standard error while they are loaded."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def hidden_stderr() -> Iterator[None]:
    """Keep what is written to file descriptor 2 from the terminal; where the block raises, show it after all.

    TensorFlow registers its CUDA plugins twice and says so, whatever TF_CPP_MIN_LOG_LEVEL is.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as hidden:
        original = os.dup(2)
        try:
            os.dup2(hidden.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(original, 2)
        except BaseException:
            hidden.seek(0)
            os.write(original, hidden.read())
            raise
        finally:
            os.close(original)


def import_tensorflow() -> None:
    """Import TensorFlow and Keras, quietly, and keep their log quiet unless TF_CPP_MIN_LOG_LEVEL says otherwise.

    Raises:
        ImportError: see `larq_clip._keras`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with hidden_stderr():
        from larq_clip import _keras

        _keras.tf.config.list_physical_devices()
