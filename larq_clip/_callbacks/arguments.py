"""Checks of the arguments of callbacks; each error names the argument, what it was given and what is accepted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def integer_from(name: str, value: Any, lowest: int, extra: str = "") -> int:
    """An integer not below `lowest`; `extra` ends the list of what is accepted."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < lowest:
        raise ValueError(f"{name} is {value!r}; accepted are integers from {lowest}{extra}")
    return int(value)


def number(name: str, value: Any, positive: bool) -> float:
    """A finite number above 0, or from 0."""
    accepted = "numbers above 0" if positive else "numbers from 0"
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{name} is {value!r}; accepted are {accepted}")
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise ValueError(f"{name} is {value!r}; accepted are {accepted}")
    return float(value)


def optional_rate(name: str, value: Any) -> float | None:
    """A learning rate, or a factor of one; or None."""
    return None if value is None else number(name, value, positive=True)
