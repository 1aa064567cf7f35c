"""Inline SVG for the report on a converted model: the graph, and histograms of thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

ROW, BOX_WIDTH, BOX_HEIGHT, TEXT = 30, 460, 22, 12  # pixels
LANE = 12  # between arcs that pass each other
LETTERS = 64  # that a box holds
BINS = 32
CHART_WIDTH, CHART_HEIGHT = 320, 60


def graph_chart(labels: Sequence[str], classes: Sequence[str], edges: Sequence[tuple[int, int]]) -> str:
    """Boxes in order of execution, one below the other, and their edges: between neighbours straight, others as arcs on
    the left.

    Args:
        labels: what stands in each box; escaped here.
        classes: CSS class of each box.
        edges: from box to box, downwards.
    """
    lanes = _lanes([edge for edge in edges if edge[1] > edge[0] + 1])
    left = LANE * (2 + max(lanes.values(), default=0))
    height = ROW * len(labels) + ROW
    parts = [f'<svg class="graph" width="{left + BOX_WIDTH + LANE}" height="{height}" role="img">']
    for edge in dict.fromkeys(edges):
        start, end = (ROW // 2 + ROW * row + BOX_HEIGHT // 2 for row in edge)
        if edge in lanes:
            x = left - LANE * (1 + lanes[edge])
            path = f"M{left} {start} H{x + 6} Q{x} {start} {x} {start + 6} V{end - 6} Q{x} {end} {x + 6} {end} H{left}"
        else:
            path = f"M{left + 20} {start} V{end}"
        parts.append(f'<path class="edge" d="{path}"/>')
    for row, (label, name) in enumerate(zip(labels, classes, strict=True)):
        y = ROW // 2 + ROW * row
        parts.append(
            f'<rect class="{escape(name)}" x="{left}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="3"/>'
            f'<text x="{left + 8}" y="{y + BOX_HEIGHT - 7}" font-size="{TEXT}">{_shortened(label)}</text>'
        )
    return "".join(parts) + "</svg>"


def _shortened(label: str) -> str:
    """What fits the box, and the whole label where the pointer rests."""
    short = label if len(label) <= LETTERS else label[: LETTERS - 1] + "…"
    return f"<title>{escape(label)}</title>{escape(short)}"


def _lanes(edges: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], int]:
    """A lane for each long edge, such that no two edges in one lane meet; short edges nearest to the boxes."""
    lanes: dict[tuple[int, int], int] = {}
    for edge in sorted(set(edges), key=lambda e: (e[1] - e[0], e)):
        taken = {lane for other, lane in lanes.items() if other[0] < edge[1] and edge[0] < other[1]}
        lanes[edge] = next(lane for lane in range(len(lanes) + 1) if lane not in taken)
    return lanes


def histogram(values: NDArray, low: float, high: float) -> str:
    """How many thresholds lie where, between the lowest and the highest value that is compared with them."""
    inside = values[(values >= low) & (values < high)].astype(np.float64)
    if inside.size == 0:
        return ""
    if not np.isfinite([low, high]).all() or high - low > 1e9:  # float32 and exact integers: show where they are
        low, high = float(inside.min()), float(inside.max()) + 1e-9
    counts, _ = np.histogram(inside, BINS, (float(low), float(high)))
    width, most = CHART_WIDTH / BINS, counts.max()
    bars = [
        f'<rect x="{i * width:.1f}" y="{CHART_HEIGHT * (1 - n / most):.1f}" width="{width - 1:.1f}" '
        f'height="{CHART_HEIGHT * n / most:.1f}"><title>{n}</title></rect>'
        for i, n in enumerate(counts.tolist())
        if n
    ]
    ends = f'<text x="0" y="{CHART_HEIGHT + TEXT}" font-size="{TEXT}">{low:g}</text>' + (
        f'<text x="{CHART_WIDTH}" y="{CHART_HEIGHT + TEXT}" font-size="{TEXT}" text-anchor="end">{high:g}</text>'
    )
    size = f'width="{CHART_WIDTH}" height="{CHART_HEIGHT + TEXT + 4}"'
    return f'<svg class="histogram" {size} role="img">{"".join(bars)}{ends}</svg>'
