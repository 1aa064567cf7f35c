"""Larq's quantized scope, restored also where a layer raises inside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from larq_clip._keras import lq


@contextlib.contextmanager
def quantized_scope(quantize: bool | None = None) -> Iterator[None]:
    """`larq.context.quantized_scope` that ends as it began, whatever happens inside.

    Larq's own has no ``finally``: where a layer raises in its call, the scope stays on. From then on all variables of
    that thread are read quantized, so that the process trains, and saves, binary weights. So whatever calls layers of
    Larq, and lives on after an error, does so within this one; also as a decorator, ``@quantized_scope()``.

    Args:
        quantize: whether kernels are read quantized inside; None for as they were.
    """
    before = lq.context.should_quantize()
    try:
        if quantize is not None:
            _set(quantize)
        yield
    finally:
        if lq.context.should_quantize() != before:
            _set(before)


def _set(quantize: bool) -> None:
    lq.context.quantized_scope(quantize).__enter__()


__all__ = ["quantized_scope"]
