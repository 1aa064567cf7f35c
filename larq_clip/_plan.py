"""Where a quantized model stores its tensors: the first of the three steps of `models.quantize_model`."""

from __future__ import annotations

from typing import Any

import numpy as np

from larq_clip import fixed_point
from larq_clip._batch_norm import require_statistics_of
from larq_clip._graph import GRID_ACTIVATIONS, SIGN_PATH, Call, Graph, refusal
from larq_clip._keras import keras

WIDEST = 53 - 16  # bits of an integer that float64 still holds times the multiplier of a batch norm
ENDLESS = 64
BOUND_BITS = 24  # of a bound of a clip, m 2^-8 within 2^15; on a finer grid the clip only makes numbers smaller

Tensor = Any


class Plan:
    """Which tensors of a clipped model are stored, in how many bits, and which layers change into fixed point."""

    def __init__(self, model: keras.Model, residual_bits: int, int8: bool):
        self.graph = Graph(model)
        require_clips(self.graph)
        require_statistics(self.graph)
        self.residual_bits, self.int8 = residual_bits, int8
        # Of each tensor: "stored" in 8 or 16 bits, "exact" (integers too wide to keep), "float", or "real" (float, too,
        # but what follows it is in fixed point again, so it is stored before that).
        self.state: dict[int, str] = {}
        self.bits: dict[int, int] = {}
        self.width: dict[int, int] = {}  # bits, at most, of the integers of an exact tensor
        self.fixed: set[int] = set()  # calls that change into layers of fixed point
        self.stored: dict[tuple[int, int], Tensor] = {}  # (position of the call, bits) to store in
        self.edges: dict[tuple[int, int], int] = {}  # (position of the consumer, id of its input) to those bits
        self.level_stores: set[tuple[int, int]] = set()  # of `stored`, those of which nothing but levels is taken
        for call in self.graph.calls:
            self._plan(call)
        readers: dict[tuple[int, int], list[Call]] = {key: [] for key in self.stored}
        for call in self.graph.calls:
            for tensor in call.inputs:
                bits = self.edges.get((call.position, id(tensor)))
                if bits:
                    readers[self.graph.by_output[id(tensor)].position, bits].append(call)
        self.level_stores = {key for key, calls in readers.items() if all(map(self._levels_only, calls))}

    def _plan(self, call: Call) -> None:
        """Decide which inputs of a call are stored in front of it, and what its output is."""
        states = [self.state[id(tensor)] for tensor in call.inputs]
        direct = self._fused_operand(call) if call.kind == "add" else None
        for tensor in call.inputs:
            bits = self._wanted_bits(call, tensor, direct)
            if bits:
                self.edges[call.position, id(tensor)] = bits
                self.stored[self.graph.by_output[id(tensor)].position, bits] = tensor
        out = id(call.output)
        inputs = [self._seen(call, tensor) for tensor in call.inputs]
        if call.kind == "binary":
            self.state[out], self.bits[out] = "stored", call.layer.accumulator_quantizer.bits
            if call.layer.has_scale:
                self.state[out], self.bits[out] = "exact", 0
            if call.layer.use_bias and np.any(call.layer.bias.numpy()):
                if not self.graph.decides_signs_only(call):
                    raise refusal(call.layer, "its bias moves the output off the integers", "use_bias=False")
                self.state[out] = "exact"
        elif call.kind == "concatenate":
            self.state[out], self.bits[out] = "stored", max(bits for _, bits in inputs)
        elif call.kind in ("monotone", "take"):
            self.state[out], self.bits[out] = inputs[0]
        elif call.kind == "clip":
            self.state[out] = "exact" if inputs[0][0] == "stored" else inputs[0][0]
        elif call.kind in ("input", "kept", "output"):
            self.state[out] = "float"
        elif call.kind == "real" or call.kind == "mean" and inputs[0][0] == "real":
            self.state[out] = "real"
        elif call.kind == "float" and self.int8:
            self.state[out] = "exact" if call.layer.activation.__name__ in GRID_ACTIVATIONS else "real"
        elif call.kind == "add" or self.int8:
            self.state[out] = "exact"
        else:
            self.state[out] = "exact" if call.kind == "norm" and states[0] != "float" else "float"
        if (call.kind == "float" and self.int8) or (call.kind == "norm" and self.state[out] == "exact"):
            self.fixed.add(call.position)
        self.bits.setdefault(out, 0)
        self.width[out] = self._width(call, inputs)

    def _width(self, call: Call, inputs: list[tuple[str, int]]) -> int:
        """Bits that the integers of a call's output take at most; 24 for what is float32."""
        if self.state[id(call.output)] != "exact":
            return self.bits[id(call.output)] or 24
        operands = [bits or self.width[id(tensor)] for tensor, (_, bits) in zip(call.inputs, inputs)]
        if call.kind == "binary":
            return call.layer.accumulator_quantizer.bits + fixed_point.MULTIPLIER_BITS
        if call.kind == "norm":
            return operands[0] + fixed_point.MULTIPLIER_BITS
        if call.kind == "clip":
            return max(operands[0], BOUND_BITS)
        if call.kind == "add":
            return max(32, *(width + 1 for width in operands))  # their fraction bits differ
        if call.kind == "mean":
            return ENDLESS  # a third has no end; where it is a power of two, nothing is lost either
        if call.kind == "float":
            products = int(np.prod(call.layer.get_weights()[0].shape[:-1]))
            return 2 * 7 + fixed_point.STEP_MANTISSA_BITS + products.bit_length()
        return operands[0]

    def _seen(self, call: Call, tensor: Tensor) -> tuple[str, int]:
        bits = self.edges.get((call.position, id(tensor)))
        return ("stored", bits) if bits else (self.state[id(tensor)], self.bits[id(tensor)])

    def _wanted_bits(self, call: Call, tensor: Tensor, direct: Tensor | None) -> int:
        """Bits in which a call wants an input stored by a layer of its own; 0 for as it is."""
        state, bits = self.state[id(tensor)], self.bits[id(tensor)]
        producer = self.graph.by_output[id(tensor)]
        if call.takes_levels:
            return self.residual_bits if state == "exact" and not self._is_threshold(tensor) else 0
        if call.kind in ("binary", "kept", "real", "output"):
            return 0
        if call.kind == "float":
            if self.int8:
                return 8 if state != "stored" or bits > 8 else 0
            return self.residual_bits if state == "exact" else 0
        if state == "stored":
            return 0
        if call.kind in SIGN_PATH:
            if state == "real":
                return self.residual_bits if call.kind == "norm" else self._bits_behind_real(call)
            if state == "float":
                return 8 if self.int8 and call.kind == "norm" and producer.kind == "input" else 0
            if call.kind == "norm" and self.width[id(tensor)] > WIDEST:
                return self.residual_bits
            # What follows at once, element by element, is computed before anything is written to memory.
            at_once = self.graph.sees_alone(call, tensor) and (call.kind == "norm" or call.elementwise)
            return 0 if at_once or self._decides_bits_only(call) else self._stream_bits(call)
        if call.kind == "mean":
            if state == "real":
                return self._bits_behind_real(call)
            return self._stream_bits(call) if state == "exact" else 0
        return 0 if tensor is direct else self.residual_bits

    def _decides_bits_only(self, call: Call) -> bool:
        """Whether of what a call produces signs are all that is needed, or levels that are taken in front of it."""
        return self.graph.decides_signs_only(call, levels=self._passes_thresholds(call))

    def _passes_thresholds(self, call: Call) -> bool:
        (tensor,) = call.inputs
        return call.passes_levels and (self._seen(call, tensor)[0] == "stored" or self._is_threshold(tensor))

    def _is_threshold(self, tensor: Tensor) -> bool:
        """Whether levels of an exact tensor are thresholds of a stored one, through layers that nothing else needs.

        The bits of a sign can be stored beside a rounded sum; levels of several bits cannot, so they are taken of
        something in memory: a clipped accumulator, or what is stored anyway.
        """
        producer = self.graph.by_output[id(tensor)]
        if not self.graph.decides_signs_only(producer, levels=True):
            return False
        return producer.kind == "binary" or (producer.kind in SIGN_PATH and self._passes_thresholds(producer))

    def _levels_only(self, call: Call) -> bool:
        """Whether levels are all that becomes of a call's input, so that what is beyond 0 and 1 counts as that."""
        if call.takes_levels:
            return True
        last = id(call.output) in self.graph.outputs or not call.consumers
        return call.kind == "monotone" and not last and all(map(self._levels_only, call.consumers))

    def _bits_behind_real(self, call: Call) -> int:
        """Float values are stored before they are written to memory, unless only float layers see them."""
        return 0 if call.elementwise or self._only_real_behind(call) else self._stream_bits(call)

    def _only_real_behind(self, call: Call) -> bool:
        return bool(call.consumers) and all(
            consumer.kind in ("real", "output")
            or (consumer.kind in ("monotone", "take", "clip", "mean") and self._only_real_behind(consumer))
            for consumer in call.consumers
        )

    def _stream_bits(self, call: Call) -> int:
        """8 where nothing but int8 layers is behind, as far as it is not rounded again; else the residual's."""
        behind = [call]
        while behind:
            current = behind.pop()
            if current.kind in ("add", "concatenate", "norm"):
                return self.residual_bits
            if current.kind in ("monotone", "take", "clip", "mean"):
                behind.extend(current.consumers)
        return 8 if self.int8 else self.residual_bits

    def _fused_operand(self, call: Call) -> Tensor | None:
        """The operand that is added as it is computed, at full precision; all others come from memory.

        A batch norm's output that nothing else needs; behind a binary layer first, the last one computed.
        """
        best: tuple[tuple[bool, int], Tensor] | None = None
        for tensor in call.inputs:
            producer = self.graph.by_output[id(tensor)]
            computed = producer.kind in ("norm", "float") or producer.elementwise
            fits = self.state[id(tensor)] == "exact" and self.width[id(tensor)] < ENDLESS
            if not fits or not computed or not self.graph.sees_alone(call, tensor):
                continue
            source = producer
            while source.kind in SIGN_PATH:
                source = self.graph.by_output[id(source.inputs[0])]
            rank = (source.kind == "binary", producer.position)
            if best is None or rank > best[0]:
                best = rank, tensor
        return None if best is None else best[1]


def require_clips(graph: Graph) -> None:
    """Refuse a model without binary layers; those that it has are clipped, which `Graph` has checked."""
    if not any(call.kind == "binary" for call in graph.calls):
        raise ValueError(f"model '{graph.model.name}' has no binary layer, so there is nothing clipped to quantize")


def require_statistics(graph: Graph) -> None:
    """Refuse batch norms that were never trained, and those whose variables are no numbers."""
    for call in graph.calls:
        if call.kind == "norm":
            require_statistics_of(call.layer, call.layer.name)


__all__ = ["Plan"]
