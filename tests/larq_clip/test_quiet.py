"""Hiding TensorFlow's lines while it is imported, without ever hiding the reason of a failure."""

from __future__ import annotations

import os

import pytest

from larq_clip._quiet import hidden_stderr


def test_what_is_written_to_standard_error_inside_is_hidden_and_outside_is_not(capfd):
    os.write(2, b"before ")
    with hidden_stderr():
        os.write(2, b"inside ")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_it_is_shown_when_the_block_raises(capfd):
    with pytest.raises(ImportError, match="broken"), hidden_stderr():
        os.write(2, b"the reason")
        raise ImportError("broken")
    os.write(2, b", after")
    assert capfd.readouterr().err == "the reason, after"


def test_no_file_descriptor_is_left_open():
    def count() -> int:
        lowest = os.dup(0)
        os.close(lowest)
        return lowest

    before = count()
    for _ in range(3):
        with hidden_stderr():
            pass
    assert count() == before
