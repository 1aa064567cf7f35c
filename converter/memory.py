"""Where every tensor lives in the arena while the runtime executes the graph, one image at a time.

A tensor is live from the op that writes it to the last op that reads it: inputs from before the first op, outputs until
after the last. Tensors whose lives meet in an op must not overlap, save that a Reshape's output is its input's bytes
under another shape, so both share one place. The plan is greedy: the largest place first, each into the smallest gap
between those already placed that are live at the same time, or behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from larq_clip.converter import ir

ALIGNMENT = 64


@dataclass(frozen=True)
class Plan:
    """Offsets in bytes by tensor name, the arena's size, and the least that any plan needs."""

    offsets: Mapping[str, int]
    arena_bytes: int
    lower_bound: int


@dataclass
class _Place:
    """Bytes that one or more tensors share, and the ops, first to last, during which they are needed."""

    size: int
    first: int
    last: int
    offset: int = -1

    def meets(self, other: _Place) -> bool:
        return self.first <= other.last and other.first <= self.last


def aligned(size: int) -> int:
    """`size` rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def live_ranges(graph: ir.Graph) -> dict[str, tuple[int, int]]:
    """Index of the op that writes each tensor (-1 for inputs) and of the last that reads it (the number of ops for
    outputs)."""
    first = {name: -1 for name in graph.inputs}
    last = {name: -1 for name in graph.inputs}
    for i, op in enumerate(graph.ops):
        for name in op.inputs:
            last[name] = i
        for name in op.outputs:
            first[name] = last[name] = i
    last.update({name: len(graph.ops) for name in graph.outputs})
    return {name: (first[name], last[name]) for name in graph.tensors}


def _places(graph: ir.Graph) -> dict[str, _Place]:
    lives = live_ranges(graph)
    places: dict[str, _Place] = {
        name: _Place(aligned(tensor.stored_bytes), *lives[name]) for name, tensor in graph.tensors.items()
    }
    for op in graph.ops:
        if isinstance(op, ir.Reshape):
            shared, other = places[op.input], places[op.output]
            shared.last = max(shared.last, other.last)
            places[op.output] = shared
    return places


def plan(graph: ir.Graph) -> Plan:
    """Place every tensor of a graph."""
    places = _places(graph)
    unique = list({id(place): place for place in places.values()}.values())
    placed: list[_Place] = []
    for place in sorted(unique, key=lambda p: (-p.size, p.first)):
        place.offset = _best_gap(place, sorted((p for p in placed if p.meets(place)), key=lambda p: p.offset))
        placed.append(place)
    moments = range(-1, len(graph.ops) + 1)
    return Plan(
        {name: place.offset for name, place in places.items()},
        max((p.offset + p.size for p in unique), default=0),
        max(sum(p.size for p in unique if p.first <= moment <= p.last) for moment in moments),
    )


def _best_gap(place: _Place, others: list[_Place]) -> int:
    """Start of the smallest gap between `others`, sorted by offset, that fits; the end of all of them otherwise."""
    best, best_size, end = None, 0, 0
    for other in others:
        gap = other.offset - end
        if gap >= place.size and (best is None or gap < best_size):
            best, best_size = end, gap
        end = max(end, other.offset + other.size)
    return end if best is None else best


def check(graph: ir.Graph, offsets: Mapping[str, int], arena_bytes: int) -> None:
    """Check a plan pair by pair.

    Raises:
        ValueError: names the tensors that overlap, or the one that is misaligned or leaves the arena.
    """
    names, lives = list(graph.tensors), live_ranges(graph)
    for name in names:
        offset, size = offsets[name], graph.tensors[name].stored_bytes
        if offset % ALIGNMENT:
            raise ValueError(f"tensor {name!r} is at offset {offset}; accepted are multiples of {ALIGNMENT}")
        if offset + size > arena_bytes:
            raise ValueError(f"tensor {name!r} ends at {offset + size}, beyond the arena of {arena_bytes} bytes")
    start = np.array([offsets[n] for n in names], object)
    end = np.array([offsets[n] + graph.tensors[n].stored_bytes for n in names], object)
    first, last = np.array([lives[n] for n in names]).T
    root = {name: name for name in names}
    for op in graph.ops:
        if isinstance(op, ir.Reshape) and offsets[op.input] == offsets[op.output]:
            root[op.output] = root[op.input]
    for i, name in enumerate(names):
        clash = (start < end[i]) & (start[i] < end) & (first <= last[i]) & (first[i] <= last)
        for j in np.flatnonzero(clash):
            if j != i and root[names[j]] != root[name]:
                raise ValueError(
                    f"tensors {name!r} and {names[j]!r} are live at the same time and overlap in the arena"
                )
