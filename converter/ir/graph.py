"""Graphs: ops in execution order, the tensors between them, and how to evaluate and rewrite them."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from larq_clip.converter.ir.ops import Op
from larq_clip.converter.ir.tensors import Tensor


class GraphError(ValueError):
    """Ops and tensors that do not make a graph."""


@dataclass(frozen=True)
class Replacement:
    """A rewrite: `removed` ops give way to `added` ones, which may bring or redefine `tensors`."""

    removed: tuple[Op, ...]
    added: tuple[Op, ...]
    tensors: tuple[Tensor, ...] = ()


@dataclass(frozen=True, eq=False)
class Graph:
    """An immutable graph. Build one with `Graph.build`, which sorts the ops and drops what no output needs."""

    name: str
    tensors: Mapping[str, Tensor]
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def build(
        cls,
        name: str,
        tensors: Iterable[Tensor],
        ops: Iterable[Op],
        inputs: Iterable[str],
        outputs: Iterable[str],
    ) -> Graph:
        """A graph with its ops in execution order (of the given order, as far as possible).

        Raises:
            GraphError: for a tensor that is missing or defined twice, or a cycle.
        """
        table: dict[str, Tensor] = {}
        for tensor in tensors:
            if table.setdefault(tensor.name, tensor) is not tensor:
                raise GraphError(f"tensor {tensor.name!r} is defined twice; names must be unique")
        inputs, outputs = tuple(inputs), tuple(outputs)
        ordered = _needed(_sorted(list(ops), inputs), outputs)
        used = dict.fromkeys([*inputs, *(t for op in ordered for t in (*op.inputs, *op.outputs)), *outputs])
        missing = [t for t in used if t not in table]
        if missing:
            raise GraphError(f"tensors {missing} are used but not defined")
        return cls(name, {t: table[t] for t in used}, tuple(ordered), inputs, outputs)

    @cached_property
    def _producers(self) -> dict[str, Op]:
        return {t: op for op in self.ops for t in op.outputs}

    @cached_property
    def _consumers(self) -> dict[str, list[Op]]:
        table: dict[str, list[Op]] = {t: [] for t in self.tensors}
        for op in self.ops:
            for t in dict.fromkeys(op.inputs):
                table[t].append(op)
        return table

    def producer(self, tensor: str) -> Op | None:
        """The op that writes a tensor; none for a graph input."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> list[Op]:
        """The ops that read a tensor."""
        return self._consumers[tensor]

    def only_consumer(self, tensor: str) -> Op | None:
        """The op that reads a tensor, if there is exactly one, which reads it once, and it is not a graph output."""
        readers = [op for op in self._consumers[tensor] for name in op.inputs if name == tensor]
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def sources(self, op: Op) -> list[Tensor]:
        """Input tensors of an op."""
        return [self.tensors[name] for name in op.inputs]

    def results(self, op: Op) -> list[Tensor]:
        """Output tensors of an op."""
        return [self.tensors[name] for name in op.outputs]

    def source(self, op: Op) -> Tensor:
        """First input tensor of an op."""
        return self.tensors[op.input]

    def result(self, op: Op) -> Tensor:
        """First output tensor of an op."""
        return self.tensors[op.output]

    def unused_name(self, wanted: str) -> str:
        """`wanted`, with a number appended where a tensor has that name already."""
        return unused_name(wanted, self.tensors)

    def replace(self, change: Replacement) -> Graph:
        """This graph with a rewrite applied; ops and tensors that nothing needs any more are gone."""
        tensors = {**self.tensors, **{t.name: t for t in change.tensors}}
        places = [i for i, op in enumerate(self.ops) if op in change.removed]
        if len(places) != len(change.removed):
            raise GraphError("a rewrite removes ops that are not in the graph")
        ops: list[Op] = []
        for i, op in enumerate(self.ops):
            if i == places[0]:
                ops.extend(change.added)
            if op not in change.removed:
                ops.append(op)
        return Graph.build(self.name, tensors.values(), ops, self.inputs, self.outputs)


def unused_name(wanted: str, taken: Container[str]) -> str:
    """`wanted`, with a number appended where that name is taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}:{number}"
    return name


def redirect(op: Op, old: str, new: str) -> Op:
    """An op that reads tensor `new` where it read `old`."""
    return dataclasses.replace(op, inputs=tuple(new if t == old else t for t in op.inputs))


def _sorted(ops: list[Op], inputs: tuple[str, ...]) -> list[Op]:
    ready, ordered = set(inputs), []
    written: set[str] = set(inputs)
    for op in ops:
        for t in op.outputs:
            if t in written:
                raise GraphError(f"op {op.name!r} writes tensor {t!r}, which has a producer already")
            written.add(t)
    while ops:
        waiting = []
        for op in ops:
            if all(t in ready for t in op.inputs):
                ordered.append(op)
                ready.update(op.outputs)
            else:
                waiting.append(op)
        if len(waiting) == len(ops):
            raise GraphError(f"ops {[op.name for op in ops]} wait for tensors that nothing produces before them")
        ops = waiting
    return ordered


def _needed(ops: list[Op], outputs: tuple[str, ...]) -> list[Op]:
    needed, kept = set(outputs), []
    for op in reversed(ops):
        if any(t in needed for t in op.outputs):
            needed.update(op.inputs)
            kept.append(op)
    return kept[::-1]


def evaluate(graph: Graph, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Every tensor of a graph, by name, with a leading batch axis; bits are unpacked, 1 for -1.

    Works for imported, half-lowered and file graphs alike.

    Raises:
        ValueError: for an input that is missing, unknown or of another shape.
    """
    if set(inputs) != set(graph.inputs):
        raise ValueError(f"inputs {sorted(inputs)} were given; the graph has {sorted(graph.inputs)}")
    arrays: dict[str, NDArray] = {}
    for name, array in inputs.items():
        tensor = graph.tensors[name]
        if np.shape(array)[1:] != tensor.shape:
            raise ValueError(f"input {name!r} has shape {np.shape(array)}; accepted is (batch, *{tensor.shape})")
        arrays[name] = np.asarray(array, tensor.dtype.numpy)
    for op in graph.ops:
        written = op.evaluate([arrays[name] for name in op.inputs], graph.sources(op), graph.results(op))
        arrays.update(zip(op.outputs, written, strict=True))
    return arrays
