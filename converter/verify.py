"""Whether a file computes what its Keras model computes: tensor by tensor, on the C runtime, for some images.

Each op of the file is checked twice, always on the tensors that the runtime itself has computed so far. So a difference
is found in the layer that makes it, and none is carried on: where rounding turns a sign near zero, the layers behind
are compared on that sign.

1. Against the file: the op's evaluator (`larq_clip.converter.ir`), as the file is read back, computes from the
   runtime's input tensors what the runtime has computed. A difference is a fault of the runtime.
2. Against Keras: where the file keeps a tensor that Keras has too, the output of a layer or its quantized input, the
   Keras layers in between compute it from the nearest such tensors of the runtime, their sums in float64. A difference
   is a fault of the file: it is damaged, was made from another model, or the converter is wrong.

Bits and integers must be equal. So must float32, unless it was rounded on the way: then the two may be as far apart as
rounding in any order can make them, which `larq_clip.converter.rounding` derives for every element from the imported
layers and the magnitudes at hand. The same derivation allows a sign, or a stored integer, to differ where what is
rounded to it lies within that distance of the step, and nowhere else. Models of integers have no such place. What the
order of a sum may do can hide a wrong weight among hundreds; so a float layer is compared without it too, its sums in
float64 on both sides, which leaves the rounding of its constants.

By induction over the layers, the runtime computes the Keras model, up to those distances. What Keras computes on its
own is compared at the outputs alone, for information: there rounding has gone through all layers.

3. Against the model's weights: images reach only some of the values at which a threshold matters. So what the file
   holds is compared with what the model gives now (`larq_clip.converter.compare`), where its ops are this version's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from larq_clip.converter import compare, ir, pipeline, reader, rounding
from larq_clip.converter.ir import DType, Tensor
from larq_clip.converter.rounding import Reals, reals, stored
from larq_clip.converter.verification import Mismatch, Verification
from larq_clip.errors import VerificationError


class Reference(Protocol):
    """The Keras side, which `larq_clip.converter.keras_importer.reference.KerasReference` is."""

    graph: ir.Graph
    layers: frozenset[str]
    sums: Mapping[str, float]
    exact: frozenset[str]

    def shape(self, name: str, bits: bool) -> tuple[int, ...] | None: ...

    def compute(self, name: str, given: Mapping[str, NDArray]) -> NDArray: ...

    def outputs(self, inputs: list[NDArray]) -> list[NDArray]: ...


def verify(reference: Reference, data: bytes, inputs: Sequence[NDArray], *, constants: bool = True) -> Verification:
    """Compare a file with its Keras model on some images; see the top of this module.

    Args:
        reference: the Keras model.
        data: the bytes of the file.
        inputs: one array ``(images, *shape)`` for each input of the model.
        constants: whether to compare constants too; a file that has just been converted needs none of that.

    Raises:
        larq_clip.VerificationError: where the file is not one of this model: names, shapes or number of inputs and
            outputs differ. A value that differs is no error here, but `Verification.mismatch`.
        larq_clip.ModelFileError: where it is no model file.
        ValueError: where the images do not fit the model.
    """
    from larq_clip.interpreter import Interpreter

    graph = reader.read(data)
    _require_same_model(reference, graph)
    interpreter = Interpreter(data, keep_tensors=True)
    batches = [np.asarray(x) for x in inputs]
    _require_images(graph, batches)
    result = Verification(len(batches[0]))
    checks = _Checks(reference, graph, result)
    for image in range(result.images):
        images = [np.ascontiguousarray(x[image : image + 1], np.float32) for x in batches]
        found = interpreter.tensors(images if len(images) > 1 else images[0])
        arrays = {name: _as_evaluated(array, graph.tensors[name]) for name, array in found.items()}
        checks.run(image, arrays)
        if result.mismatch is None:
            _compare_outputs(reference, graph, result, images, arrays)
    if constants:
        expected = pipeline.lower(reference.graph)
        result.constants = compare.same_structure(expected, graph)
        if result.constants and result.mismatch is None:
            result.mismatch = compare.first_difference(expected, graph)
    return result


def _as_evaluated(array: NDArray, tensor: Tensor) -> NDArray:
    """A tensor of the runtime as the evaluators take it: signs become bits."""
    return (array < 0).astype(np.uint8) if tensor.dtype is DType.BIT else array


def _require_images(graph: ir.Graph, batches: Sequence[NDArray]) -> None:
    if len(batches) != len(graph.inputs):
        raise ValueError(f"{len(batches)} arrays of images were given; the model has {len(graph.inputs)} inputs")
    for name, batch in zip(graph.inputs, batches, strict=True):
        shape = graph.tensors[name].shape
        if batch.shape[1:] != shape or batch.dtype.kind not in "fiu":
            raise ValueError(
                f"the images of input {name!r} have shape {batch.shape} and dtype {batch.dtype}; accepted are real "
                f"numbers of shape {('images', *shape)}".replace("'", "")
            )
    if len({len(batch) for batch in batches}) != 1 or not len(batches[0]):
        raise ValueError(f"the inputs have {[len(batch) for batch in batches]} images; give each as many, at least one")


def _require_same_model(reference: Reference, graph: ir.Graph) -> None:
    imported = reference.graph
    for what, own, other in (("inputs", graph.inputs, imported.inputs), ("outputs", graph.outputs, imported.outputs)):
        shapes = [[(name, g.tensors[name].shape) for name in names] for g, names in ((graph, own), (imported, other))]
        same = len(own) == len(other) and all(a[1] == b[1] for a, b in zip(*shapes, strict=True))
        if not same or (what == "inputs" and own != other):
            raise VerificationError(
                f"the file's {what} are {_words(shapes[0])}, and the model's {_words(shapes[1])}; verify it with the "
                "model that it was made from"
            )
    for op in graph.ops:
        for part in op.name.split("+"):
            layer = re.sub(r":.*", "", part)
            if layer not in reference.layers and layer not in imported.inputs:
                raise VerificationError(
                    f"the file has the layer {layer!r} ({op.type}), which model {imported.name!r} has not; verify it "
                    "with the model that it was made from, saved before it was built anew, since Keras numbers layers "
                    "without a name on"
                )


def _words(shapes: list[tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name!r} {(None, *shape)}" for name, shape in shapes)


class _Checks:
    """Both checks of all ops, image after image, up to the first op that fails."""

    def __init__(self, reference: Reference, graph: ir.Graph, result: Verification):
        self._reference, self._graph, self._result = reference, graph, result
        self._end = len(graph.ops)
        self._known = {name for name, tensor in graph.tensors.items() if self._knows(tensor)}
        result.ops = len(graph.ops)

    def _knows(self, tensor: Tensor) -> bool:
        """Whether Keras has the tensor too."""
        shape = self._reference.shape(tensor.name, tensor.dtype is DType.BIT)
        return shape is not None and int(np.prod(shape)) == int(np.prod(tensor.shape))

    def run(self, image: int, arrays: Mapping[str, NDArray]) -> None:
        for place, op in enumerate(self._graph.ops[: self._end]):
            mismatch = self._against_file(image, op, arrays)
            for name in op.outputs:
                if mismatch is None and name in self._known:
                    mismatch = self._against_keras(image, name, arrays)
            if mismatch is not None:
                self._result.mismatch = mismatch
                self._end = place  # another image may show a fault of an earlier op
                return

    def _against_file(self, image: int, op: ir.Op, arrays: Mapping[str, NDArray]) -> Mismatch | None:
        graph = self._graph
        computed = op.evaluate([arrays[name] for name in op.inputs], graph.sources(op), graph.results(op))
        for tensor, array in zip(graph.results(op), computed, strict=True):
            expected, found = reals(array, tensor), reals(arrays[tensor.name], tensor)
            differs = _differs(expected, found)
            if not np.any(differs):
                continue
            allowed = rounding.enclose(graph, tensor.name, {name: arrays[name] for name in op.inputs}).error
            differs &= ~(np.abs(expected - found) <= allowed)
            if np.any(differs):
                return _mismatch("the file", op.name, op.type, tensor, image, expected, found, allowed, differs)
        return None

    def _against_keras(self, image: int, name: str, arrays: Mapping[str, NDArray]) -> Mismatch | None:
        result, tensor = self._result, self._graph.tensors[name]
        ops, given = self._segment(name)
        expected, used = self._expected(name, given, arrays)
        expected = expected.reshape(1, *tensor.shape)
        if tensor.dtype is DType.FLOAT32:
            expected = expected.astype(np.float32)
        expected, found = expected.astype(np.float64), reals(arrays[name], tensor)
        result.values += found.size
        result.tensors.setdefault(name, 0.0)
        differs = _differs(expected, found)
        if not np.any(differs):
            return None
        allowed = self._allowed(name, used, arrays).reshape(found.shape)
        difference = np.abs(expected - found)
        beyond = differs & ~(difference <= allowed)
        if not np.any(beyond):
            closer = self._beyond_its_constants(name, used, arrays, expected)
            if closer is not None:
                beyond, allowed = closer
        if np.any(beyond):
            layers, types = "+".join(dict.fromkeys(op.name for op in ops)), "+".join(op.type for op in ops)
            return _mismatch("Keras", layers, types, tensor, image, expected, found, allowed, beyond)
        result.tensors[name] = max(result.tensors[name], float(difference[differs].max()))
        result.allowed[name] = max(result.allowed.get(name, 0.0), float(allowed[differs].max()))
        result.flipped += int(np.sum(differs)) if tensor.dtype is not DType.FLOAT32 else 0
        return None

    def _segment(self, name: str) -> tuple[list[ir.Op], set[str]]:
        """The ops behind the nearest tensors that Keras knows, in order, and these tensors."""
        ops: list[ir.Op] = []
        given: set[str] = set()
        waiting = [name]
        while waiting:
            op = self._graph.producer(waiting.pop())
            if op is None or op in ops:
                continue
            ops.append(op)
            for source in op.inputs:
                if source in self._known:
                    given.add(source)
                else:
                    waiting.append(source)
        return [op for op in self._graph.ops if op in ops], given

    def _expected(self, name: str, given: set[str], arrays: Mapping[str, NDArray]) -> tuple[NDArray, Collection[str]]:
        """What Keras computes, and from which tensors of the runtime."""
        numbers = {other: reals(arrays[other], self._graph.tensors[other]) for other in given}
        try:
            return self._reference.compute(name, numbers), numbers
        except LookupError:
            pass
        # The file reads a tensor in another place than Keras does, a sign that several layers share for instance; so
        # whatever else the runtime has computed may stand for what Keras needs.
        others = (self._known - set(self._graph.producer(name).outputs)) | given
        numbers = {other: reals(arrays[other], self._graph.tensors[other]) for other in self._before(name, others)}
        try:
            return self._reference.compute(name, numbers), numbers
        except LookupError as error:
            raise VerificationError(
                f"tensor {name!r} of the file depends on {sorted(given)}, which is not enough for Keras: {error}; "
                "verify the file with the model that it was made from"
            ) from error

    def _before(self, name: str, among: set[str]) -> list[str]:
        """Tensors that are there before the op that writes one, the model's inputs included."""
        place = next(i for i, op in enumerate(self._graph.ops) if name in op.outputs)
        written = [*self._graph.inputs, *(t for op in self._graph.ops[:place] for t in op.outputs)]
        return [other for other in written if other in among]

    def _allowed(
        self, name: str, used: Collection[str], arrays: Mapping[str, NDArray], settled: str | None = None
    ) -> Reals:
        """How far Keras and the runtime may be apart, by the imported layers behind the tensors that Keras used;
        `settled` is as in `rounding.Rules`."""
        imported, tensor = self._reference.graph, self._graph.tensors[name]
        if name not in imported.tensors:
            return np.zeros(tensor.shape)
        known: dict[str, NDArray] = {}
        for other in self._known:
            if other == name or other not in imported.tensors:
                continue
            source, target = self._graph.tensors[other], imported.tensors[other]
            # Exact integers that the file has as float32 only are rounded there.
            if source.dtype is not DType.FLOAT32 or target.dtype is DType.FLOAT32:
                known[other] = stored(reals(arrays[other], source).reshape(1, *target.shape), target)
        rules = rounding.Rules(self._reference.sums, self._reference.exact, settled)
        try:
            return rounding.enclose(imported, name, {o: known[o] for o in used if o in known}, rules).error
        except KeyError:  # Keras has a tensor, a sign that layers share for instance, where the graph has none
            return rounding.enclose(imported, name, known, rules).error

    def _beyond_its_constants(
        self, name: str, used: Collection[str], arrays: Mapping[str, NDArray], expected: Reals
    ) -> tuple[NDArray[np.bool_], Reals] | None:
        """Where a float layer is off by more than the rounding of its constants makes it, its sum in float64 in the
        file too; and how far that is. That the runtime sums in the order of the file has been checked by then."""
        op, imported = self._graph.producer(name), self._reference.graph
        before = imported.producer(name)
        while before is not None and not isinstance(before, ir.Conv2D) and len(before.inputs) == 1:
            before = imported.producer(before.input)  # a batch norm, say, which has been folded into the weights
        if not isinstance(op, ir.Conv2D) or not isinstance(before, ir.Conv2D):
            return None
        (source,), (tensor,) = self._graph.sources(op), self._graph.results(op)
        exact = op.exact(arrays[op.input], source, tensor)
        allowed = self._allowed(name, used, arrays, before.output).reshape(exact.shape)
        return np.isfinite(expected) & ~(np.abs(expected - exact) <= allowed), allowed


def _differs(expected: Reals, found: Reals) -> NDArray[np.bool_]:
    return ~((expected == found) | (np.isnan(expected) & np.isnan(found)))


def _mismatch(
    against: str,
    layer: str,
    op: str,
    tensor: Tensor,
    image: int,
    expected: Reals,
    found: Reals,
    allowed: Reals,
    differs: NDArray[np.bool_],
) -> Mismatch:
    """Of the values that differ, the first one in memory."""
    place = tuple(int(i) for i in np.argwhere(differs)[0])
    return Mismatch(
        against=against,
        layer=layer,
        op=op,
        tensor=tensor.name,
        image=image,
        place=place[1:],
        expected=float(expected[place]),
        found=float(found[place]),
        allowed=float(np.broadcast_to(allowed, found.shape)[place]),
        differing=int(np.sum(differs)),
        size=found.size,
    )


def _compare_outputs(
    reference: Reference, graph: ir.Graph, result: Verification, images: list[NDArray], arrays: Mapping[str, Any]
) -> None:
    for name, expected in zip(graph.outputs, reference.outputs(images), strict=True):
        difference = np.abs(expected.astype(np.float32).reshape(arrays[name].shape) - arrays[name])
        result.outputs[name] = max(result.outputs.get(name, 0.0), float(difference.max(initial=0)))
