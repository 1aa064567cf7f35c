"""Where every tensor lives in the arena while the runtime executes the graph, one image at a time.

A tensor is live from the op that writes it to the last op that reads it: inputs from before the first op, outputs until
after the last. Tensors whose lives meet in an op must not overlap, with two exceptions, for which the tensors start at
the same byte (`schema/FORMAT.md`, "In place"):

- The output of a Reshape is its input's bytes under another shape, so both may share one place while they live.
- An op that reads an input pixel by pixel may write an output of the same type and shape over it, if nothing else reads
  that input then or later. A pixel then takes the bytes of the same pixel, whichever thread writes it.

Tensors that share a place are planned as one. The places are put down one after the other, each into the smallest gap
between those that are live at the same time, or behind them: the largest first, or in another order where that makes a
smaller arena.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from larq_clip.converter import ir

ALIGNMENT = 64
ROUNDS = 32  # of the search for a better order, where no simple one reaches the lower bound

# The first input that an op reads pixel by pixel; all behind it are read so too. As in the runtime's plan.c.
FIRST_BY_PIXEL: Mapping[type[ir.Op], int] = {
    ir.Affine: 0,
    ir.Softmax: 0,
    ir.Elementwise: 0,
    ir.Arithmetic: 0,
    ir.PReLU: 0,
    ir.Function: 0,
    ir.BinaryConv2D: 1,
    ir.Int8Conv2D: 1,
}


@dataclass(frozen=True)
class Plan:
    """Offsets in bytes by tensor name, the arena's size, and the largest sum of the tensors that must live at once.

    Of tensors that can share a place the sum counts one: no plan of these ops in this order needs less.
    """

    offsets: Mapping[str, int]
    arena_bytes: int
    lower_bound: int


@dataclass
class _Place:
    """Bytes that tensors share, and the ops, first to last, during which they are needed."""

    size: int
    first: int
    last: int
    members: list[str] = field(default_factory=list)

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


def may_replace(graph: ir.Graph, op: ir.Op, read: str, written: str) -> bool:
    """Whether an op may write one of its outputs over one of its inputs, if nothing needs that input afterwards."""
    source, result = graph.tensors[read], graph.tensors[written]
    if source.dtype is not result.dtype or ir.image_shape(source.shape) != ir.image_shape(result.shape):
        return False
    first = FIRST_BY_PIXEL.get(type(op), len(op.inputs))
    return read not in op.inputs[:first]


def _places(graph: ir.Graph) -> list[_Place]:
    lives = live_ranges(graph)
    places = {name: _Place(tensor.stored_bytes, *lives[name], [name]) for name, tensor in graph.tensors.items()}

    def share(read: str, written: str) -> None:
        shared, other = places[read], places[written]
        shared.last = max(shared.last, other.last)
        shared.members += other.members
        places[written] = shared

    for i, op in enumerate(graph.ops):
        if isinstance(op, ir.Reshape):
            share(op.input, op.output)
            continue
        for written in op.outputs:
            for read in dict.fromkeys(op.inputs):
                needed = [name for name in places[read].members if lives[name][1] >= i]
                if needed == [read] and lives[read][1] == i and may_replace(graph, op, read, written):
                    share(read, written)
                    break
    return list({id(place): place for place in places.values()}.values())


def plan(graph: ir.Graph) -> Plan:
    """Place every tensor of a graph; the same graph gives the same plan."""
    places = _places(graph)
    offsets, arena_bytes = _best_layout(places, _most_at_once(places, map(aligned, (p.size for p in places))))
    return Plan(
        {name: offset for place, offset in zip(places, offsets, strict=True) for name in place.members},
        arena_bytes,
        _most_at_once(places, (p.size for p in places)),
    )


def _most_at_once(places: Sequence[_Place], sizes: Iterable[int]) -> int:
    """The largest sum of the sizes of places that are live at the same time."""
    change: dict[int, int] = {}
    for place, size in zip(places, sizes, strict=True):
        change[place.first] = change.get(place.first, 0) + size
        change[place.last + 1] = change.get(place.last + 1, 0) - size
    return max(np.cumsum([change[moment] for moment in sorted(change)]).tolist(), default=0)


def _best_layout(places: Sequence[_Place], least: int) -> tuple[list[int], int]:
    """Offsets of the places, and the arena's size: the best of a few orders, then of moving to the front whatever ends
    last, until no byte beyond `least`, which aligned places need, is left."""
    numbers = range(len(places))
    orders = [
        sorted(numbers, key=lambda i: (-places[i].size, places[i].first)),
        sorted(numbers, key=lambda i: (-places[i].size * (places[i].last - places[i].first + 1), places[i].first)),
        sorted(numbers, key=lambda i: (places[i].first, -places[i].size)),
    ]
    best: tuple[int, list[int], list[int]] | None = None
    for attempt in range(len(orders) + ROUNDS):
        if attempt >= len(orders):
            assert best is not None
            ends = [offset + place.size for offset, place in zip(best[1], places, strict=True)]
            highest = max(best[2], key=lambda i: ends[i])
            orders.append([highest, *(i for i in best[2] if i != highest)])
        offsets = _layout(places, orders[attempt])
        end = max((offset + place.size for offset, place in zip(offsets, places, strict=True)), default=0)
        if best is None or end < best[0] or (end == best[0] and attempt >= 3):
            best = (end, offsets, orders[attempt])
        if best[0] <= least:
            break
    assert best is not None
    return best[1], best[0]


def _layout(places: Sequence[_Place], order: Sequence[int]) -> list[int]:
    """Offsets of the places, put down in this order."""
    first, last = (np.array([getattr(p, end) for p in places]) for end in ("first", "last"))
    offsets, ends, placed = (np.zeros(len(places), np.int64) for _ in range(3))
    for i in order:
        others = np.flatnonzero(placed & (first <= last[i]) & (first[i] <= last))
        others = others[np.argsort(offsets[others], kind="stable")]
        offsets[i] = _best_gap(places[i].size, offsets[others].tolist(), ends[others].tolist())
        ends[i], placed[i] = aligned(int(offsets[i]) + places[i].size), 1
    return offsets.tolist()


def _best_gap(size: int, starts: Sequence[int], ends: Sequence[int]) -> int:
    """Start of the smallest gap between others, sorted by their starts, that fits; the end of all of them otherwise."""
    best, best_size, end = None, 0, 0
    for start, behind in zip(starts, ends, strict=True):
        gap = start - end
        if gap >= size and (best is None or gap < best_size):
            best, best_size = end, gap
        end = max(end, behind)
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
    root, replaced = {name: name for name in names}, dict[str, str]()
    for op in graph.ops:
        if isinstance(op, ir.Reshape) and offsets[op.input] == offsets[op.output]:
            root[op.output] = root[op.input]
        for written in op.outputs:
            for read in op.inputs:
                if offsets[read] == offsets[written] and may_replace(graph, op, read, written):
                    replaced[written] = read

    def takes_over(written: str, read: str) -> bool:
        return replaced.get(written) == read and lives[written][0] == lives[read][1]

    for i, name in enumerate(names):
        clash = (start < end[i]) & (start[i] < end) & (first <= last[i]) & (first[i] <= last)
        for other in (names[j] for j in np.flatnonzero(clash) if j != i):
            if root[other] != root[name] and not takes_over(name, other) and not takes_over(other, name):
                raise ValueError(f"tensors {name!r} and {other!r} are live at the same time and overlap in the arena")
