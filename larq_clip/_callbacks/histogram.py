"""Histograms of tensors that arrive batch by batch, without a range known beforehand."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Bins(NamedTuple):
    """Neighbouring bins of equal width: bin i counts the values v with left + i width <= v < left + (i + 1) width."""

    left: float
    width: float
    counts: NDArray[np.int64]

    @property
    def edges(self) -> NDArray[np.float64]:
        """Left edge of each bin, then the right edge of the last."""
        return self.left + self.width * np.arange(len(self.counts) + 1)


class Histogram:
    """Counts values by the multiple of `grid` at or below each, and those with |value| > `limit`.

    Values that are not finite are counted apart, and take part in nothing else.
    """

    def __init__(self, grid: float, limit: float = math.inf):
        self.grid, self.limit = grid, limit
        self.cells, self.counts = np.zeros(0), np.zeros(0, np.int64)
        self.elements = self.beyond = self.not_finite = 0
        self._sum = self._squares = 0.0
        self.minimum, self.maximum = math.inf, -math.inf

    def add(self, values: NDArray) -> None:
        """Count all elements of an array."""
        values = np.asarray(values, np.float64).ravel()
        finite = values[np.isfinite(values)]
        self.not_finite += values.size - finite.size
        if not finite.size:
            return
        self.elements += finite.size
        self.beyond += int(np.count_nonzero(np.abs(finite) > self.limit))
        self._sum += float(finite.sum())
        self._squares += float(np.square(finite).sum())
        self.minimum = min(self.minimum, float(finite.min()))
        self.maximum = max(self.maximum, float(finite.max()))
        cells, counts = np.unique(np.floor(finite / self.grid), return_counts=True)
        self.cells, place = np.unique(np.concatenate([self.cells, cells]), return_inverse=True)
        merged = np.zeros(self.cells.size, np.int64)
        np.add.at(merged, place.ravel(), np.concatenate([self.counts, counts]))
        self.counts = merged

    @property
    def share_beyond(self) -> float:
        """Share of the values with |value| > limit; NaN where there is no value."""
        return self.beyond / self.elements if self.elements else math.nan

    @property
    def mean(self) -> float:
        """Mean value; NaN where there is none."""
        return self._sum / self.elements if self.elements else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation; NaN where there is no value."""
        if not self.elements:
            return math.nan
        return math.sqrt(max(0.0, self._squares / self.elements - self.mean**2))

    def bins(self, count: int) -> Bins:
        """At most `count` bins, each a whole number of occupied lattice points wide, so that none is fuller by chance.

        Accumulators of an even number of taps, say, are all even; bins of odd widths would look like a comb.
        """
        if not self.cells.size:
            return Bins(0.0, self.grid, np.zeros(count, np.int64))
        first, last = self.cells[0], self.cells[-1]
        distances = np.diff(self.cells)
        pitch = 1.0
        if distances.size and last - first < 2**53:
            pitch = float(np.gcd.reduce(distances.astype(np.int64)))
        width = pitch * math.ceil(((last - first) / pitch + 1) / count)
        counts = np.zeros(count, np.int64)
        places = np.clip(np.floor((self.cells - first) / width), 0, count - 1).astype(np.int64)
        np.add.at(counts, places, self.counts)
        return Bins(float(first * self.grid), float(width * self.grid), counts)
