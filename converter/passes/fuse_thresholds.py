"""Turn monotone functions before a sign into thresholds (equation 2 of the paper).

The algebra, per channel. Let F = f_n ∘ … ∘ f_1 be the ops between a tensor S and a sign, without their max pools:
bias, batch norm, relu, in float32 or in exact integers. Each f rises or falls weakly, in float32 too, since rounding is
monotone. So does F, and

    1.  sign(F(v)) = +1  ⇔  (v > T) xor invert            invert where F falls
    2.  max over a window of F_k(v) = F_k(max v) where F_k = f_k ∘ … ∘ f_1 rises, F_k(min v) where it falls.

T is found by evaluating F, with the actual Keras layers or in integers, on S's domain: every integer in [−K, K], the
clip's range, what a stored type holds or an exact tensor can reach, or every finite float32; no formula is trusted. A
max pool after F_k becomes an AND of bits (1 for −1). Before that pool the bits must rank pixels as F_k does, so they
are inverted where F_k falls:

    3.  bits leave the threshold inverted by p_1, and pool k inverts by p_k xor p_(k+1), where p_k = [F_k falls] at
        the k-th pool and the last p is `invert`.

So with the pool before a batch norm with γ < 0 the convolution does not invert and the pool does; with the pool
after it, the convolution inverts and the pool does not.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip.arithmetic import clip_limit
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Epilogue, Graph, Op, Replacement, Tensor
from larq_clip.converter.passes.base import apply_everywhere
from larq_clip.errors import ConversionError

INT8_LIMIT = clip_limit(8)
SMALLEST_DOMAIN = 2.0**32  # no activation is larger
ENUMERATED = 4095  # domains up to this size, an 8-bit clip's 255 values among them, are checked value by value


def fuse_thresholds(graph: Graph) -> Graph:
    """Two rewrites, for a chain of BatchNorm, Affine, Elementwise and MaxPool2D ops before a Bitpack with one output:

        BinaryConv2D → [AccumulatorClip] → chain → Bitpack  ⇒  BinaryConv2D(Threshold) → [BitMaxPool2D …]
        S → chain → Bitpack                                 ⇒  S → Bitpack(thresholds) → [BitMaxPool2D …]

    The first fires where no other op reads, and no output is, a tensor in between. The second takes the rest: a
    float, stored or exact tensor S, and accumulators that are needed as numbers too (they become float32, exactly).
    Where others read a tensor of the chain, the chain stays for them. The chain is as long as possible, but an exact
    tensor that is needed as more than signs is a root: its producer takes the sign along, see `fuse_fixed_point`.

    The Bitpack is a plain sign, or has thresholds of its own, as quantizers to 0 and 1 have. It does not fire on one
    that follows S directly, on one with inverted channels, nor on bits. It ends because
    each rewrite takes a Bitpack nearer to the inputs, or makes it a convolution's.
    """
    return apply_everywhere(graph, _rewrite)


class Chain(NamedTuple):
    """The ops from a tensor to a sign, in order of execution, and the accumulator's convolution and clip if any."""

    root: Tensor
    ops: list[Op]
    sign: Op
    conv: ir.BinaryConv2D | None = None
    clip: ir.AccumulatorClip | None = None


def find_chain(graph: Graph, sign: Op) -> Chain:
    """Walk up from a sign as far as elementwise monotone ops and max pools go."""
    ops: list[Op] = []
    name, exclusive = sign.input, True
    while True:
        exclusive = exclusive and graph.only_consumer(name) is not None
        producer = graph.producer(name)
        if not isinstance(producer, (ir.BatchNorm, ir.Affine, ir.MaxPool2D)) and not _is_exact_function(producer):
            break
        if _is_exact_function(producer) and graph.only_consumer(name) is None and not _signs_only(graph, name):
            break
        ops.insert(0, producer)
        name = producer.input
    chain = Chain(graph.tensors[name], ops, sign)
    if not exclusive:
        return chain
    clip = None
    if isinstance(producer, ir.AccumulatorClip) and graph.only_consumer(producer.input) is not None:
        clip, producer = producer, graph.producer(producer.input)
    if isinstance(producer, ir.BinaryConv2D) and producer.epilogue is Epilogue.ACCUMULATOR:
        return chain._replace(conv=producer, clip=clip)
    return chain


def _is_exact_function(op: Op | None) -> bool:
    """Whether an op computes exact integers from one tensor."""
    return isinstance(op, ir.Elementwise) and len(op.inputs) == 1 and not op.only_stores


def _signs_only(graph: Graph, name: str) -> bool:
    """Whether of a tensor, behind the ops of a chain, signs are all that is needed."""
    if name in graph.outputs:
        return False
    return all(
        isinstance(reader, ir.Bitpack)
        or ((isinstance(reader, ir.MaxPool2D) or _is_exact_function(reader)) and _signs_only(graph, reader.output))
        for reader in graph.consumers(name)
    )


def _rewrite(graph: Graph, op: Op) -> Replacement | None:
    if not isinstance(op, ir.Bitpack) or op.invert is not None or len(op.outputs) > 1:
        return None
    chain = find_chain(graph, op)
    if chain.conv is not None:
        return _fuse_into_conv(graph, chain, chain.conv)
    as_float = chain.root.dtype is DType.INT32
    if not chain.ops or (as_float and any(isinstance(op, ir.Elementwise) for op in chain.ops)):
        return None
    return _fuse_into_bitpack(graph, chain)


def _fuse_into_conv(graph: Graph, chain: Chain, conv: ir.BinaryConv2D) -> Replacement:
    clip = chain.clip
    limit = conv.k if clip is None else clip.limit
    bits = () if clip is None else (-clip.step_log2,)
    follow = Follower(graph, chain, Tensor("", DType.INT32, chain.root.shape, bits))
    found = follow.integer_thresholds(limit)
    falls = follow.falls_at_pools(np.array([-limit, limit]))
    dtype = np.int8 if clip is not None and limit <= INT8_LIMIT else smallest_integer(found.threshold)
    fused = dataclasses.replace(
        conv,
        epilogue=Epilogue.THRESHOLD,
        clip_limit=0 if clip is None else clip.limit,
        step_log2=0 if clip is None else clip.step_log2,
        thresholds=found.threshold.astype(dtype),
    )
    return _with_pools(graph, chain, fused, [*falls, found.invert])


def _fuse_into_bitpack(graph: Graph, chain: Chain) -> Replacement:
    root = chain.root
    # int32 accumulators that reach this point are stored as float32, see `lower_accumulators`.
    follow = Follower(graph, chain, root if root.dtype is not DType.INT32 else Tensor("", DType.FLOAT32, root.shape))
    if root.dtype in (*ir.STORED, DType.INT64):
        reach = ir.ranges(graph)[root.name] if root.dtype is DType.INT64 else None
        limit = clip_limit(8 * root.dtype.numpy.itemsize) if reach is None else reach.largest
        follow = follow._replace(reach=reach)
        found = follow.integer_thresholds(limit)
        thresholds: NDArray = found.threshold.astype(root.dtype.numpy)
        ends: NDArray = np.array([-limit, limit])
        invert = found.invert
    else:
        largest = follow.largest_float()
        tau = arithmetic.find_float_thresholds(root.channels, follow.sign_bits, largest)
        thresholds, invert = tau.threshold, tau.invert
        ends = np.array([-largest, largest], np.float32)
    bits = ir.Bitpack(chain.sign.name, (root.name,), ("",), thresholds)
    return _with_pools(graph, chain, bits, [*follow.falls_at_pools(ends), invert])


def _pixel(tensor: Tensor) -> Tensor:
    """A tensor's single pixel. The rank matters: Keras rounds differently for images and for vectors."""
    return dataclasses.replace(tensor, shape=(1,) * (len(tensor.shape) - 1) + tensor.shape[-1:])


def smallest_integer(array: NDArray[np.integer]) -> type[np.integer]:
    """The narrowest of int8, int16 and int32 that holds every element."""
    for dtype in (np.int8, np.int16):
        if np.all(array == array.astype(dtype)):
            return dtype
    return np.int32


class Follower(NamedTuple):
    """Evaluates a chain on single numbers instead of images, a pixel a number, pools left out."""

    graph: Graph
    chain: Chain
    root: Tensor  # what the domain's values are
    reach: ir.Range | None = None  # of each channel, where they differ

    def _steps(self, v: NDArray) -> list[tuple[Op, NDArray]]:
        """Each op with its output at ``(n, channels)`` domain values; a pool passes its input on."""
        if self.reach is not None:  # beyond that, integers may overflow
            low, high = (end.astype(np.int64) for end in self.reach)
            v = np.clip(v, low, high)
        source = _pixel(self.root)
        x = np.asarray(v, source.dtype.numpy)
        steps: list[tuple[Op, NDArray]] = []
        for op in self.chain.ops:
            if not isinstance(op, ir.MaxPool2D):
                result = _pixel(self.graph.result(op))
                with np.errstate(over="ignore", invalid="ignore"):  # see largest_float
                    (x,) = op.evaluate([x.reshape(len(v), *source.shape)], [source], [result])
                x, source = x.reshape(np.shape(v)), result
            steps.append((op, x))
        return steps

    def largest_float(self) -> float:
        """The end of the float domain: the largest float32, or less where a batch norm overflows there.

        An infinity times a gamma of 0 is NaN, which has no sign; no activation comes near.
        """
        largest = arithmetic.LARGEST_FLOAT
        while True:
            ends = np.repeat(np.array([[-largest], [largest]], np.float32), self.chain.root.channels, axis=1)
            if all(np.all(np.isfinite(x)) for _, x in self._steps(ends)):
                return largest
            largest /= 2.0**8
            if largest < SMALLEST_DOMAIN:
                raise self._overflow()

    def _overflow(self) -> ConversionError:
        names = ir.join_names(*self.chain.ops)
        return ConversionError(
            f"layers {names!r} before the sign {self.chain.sign.output!r} overflow float32 on ordinary values; look "
            "for huge or tiny moving statistics, and train them anew"
        )

    def sign_bits(self, v: NDArray) -> NDArray[np.uint8]:
        """Packed-bit values of the signs at the end of the chain, ``(n, channels)``."""
        steps = self._steps(v)
        last = steps[-1][1] if steps else np.asarray(v)
        if np.any(np.isnan(last)):
            raise self._overflow()
        thresholds = getattr(self.chain.sign, "thresholds", None)
        if thresholds is None:
            return arithmetic.sign_bits(last)
        none = np.zeros(thresholds.shape, np.uint8)
        if thresholds.dtype != np.float32:
            return arithmetic.threshold_bits(last, arithmetic.Thresholds(thresholds, none))
        return arithmetic.float_threshold_bits(last.astype(np.float32), arithmetic.FloatThresholds(thresholds, none))

    def integer_thresholds(self, limit: int, factors: NDArray[np.integer] | int = 1) -> arithmetic.Thresholds:
        """Thresholds on the integers in [-limit, limit], by bisection, then checked against every value.

        Args:
            factors: of each channel, 1, or -1 where the threshold is one of the negated integers.
        """
        channels = self.chain.root.channels

        def sign_bits(v: NDArray) -> NDArray[np.uint8]:
            return self.sign_bits(v * factors)

        found = arithmetic.find_thresholds(-limit, limit, channels, sign_bits)
        if 2 * limit + 1 <= ENUMERATED:
            domain = np.repeat(np.arange(-limit, limit + 1)[:, None], channels, axis=1)
            if np.any(arithmetic.threshold_bits(domain, found) != sign_bits(domain)):
                raise ConversionError(
                    f"layers {ir.join_names(*self.chain.ops)!r} before the sign {self.chain.sign.output!r} are not "
                    "monotone: their sign changes more than once over the accumulator's values, so it is no threshold. "
                    "Please report the model"
                )
        return found

    def falls_at_pools(self, ends: NDArray) -> list[NDArray[np.uint8]]:
        """Of each pool in the chain: 1 for the channels in which the function before it falls."""
        domain = np.repeat(ends[:, None], self.chain.root.channels, axis=1)
        return [(x[1] < x[0]).astype(np.uint8) for op, x in self._steps(domain) if isinstance(op, ir.MaxPool2D)]


def _with_pools(
    graph: Graph,
    chain: Chain,
    first: ir.BinaryConv2D | ir.Bitpack,
    inverts: list[NDArray[np.uint8]],
) -> Replacement:
    """The fused op, then a BitMaxPool2D per pool; inverts[k] is p_(k+1) of the algebra above.

    Only the sign is removed by name: its chain goes where no other op needs it.
    """
    pools = [op for op in chain.ops if isinstance(op, ir.MaxPool2D)]
    before = [op for op in chain.ops[: chain.ops.index(pools[0])]] if pools else list(chain.ops)
    swallowed = [op for op in (chain.conv, chain.clip, *before) if op is not None]
    name = ir.join_names(*swallowed) if swallowed else chain.sign.name
    bits = graph.result(chain.sign)
    added: list[Op] = []
    tensors: list[Tensor] = []
    shape, source = chain.root.shape, first.inputs
    for k in range(len(pools) + 1):
        flip = inverts[0] if k == 0 else inverts[k - 1] ^ inverts[k]
        invert = flip if np.any(flip) else None
        output = bits.name if k == len(pools) else graph.unused_name(f"{bits.name}:before_{pools[k].output}")
        if k == 0:
            added.append(dataclasses.replace(first, name=name, outputs=(output,), invert=invert))
        else:
            pool = pools[k - 1]
            shape = graph.result(pool).shape
            later = chain.ops[chain.ops.index(pool) : chain.ops.index(pools[k]) if k < len(pools) else None]
            added.append(ir.BitMaxPool2D(ir.join_names(*later), source, (output,), pool.window, invert))
        tensors.append(Tensor(output, DType.BIT, shape))
        source = (output,)
    return Replacement((chain.sign,), tuple(added), tuple(tensors))
