"""What quantizers produce: only that decides whether a tensor or a kernel is binary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from larq_clip import arithmetic
from larq_clip._binary import level_count, produces_signs
from larq_clip._keras import lq, tf
from larq_clip._scope import quantized_scope
from larq_clip.arithmetic import bits_to_signs, clip_limit, sign_bits, step_exponent
from larq_clip.converter import ir
from larq_clip.converter.ir import ArithmeticKind, DType, Tensor
from larq_clip.converter.ir.fixed_point import EXACT_BITS
from larq_clip.converter.keras_importer.context import LayerImport
from larq_clip.quantizers import AccumulatorClip

TINY = float(np.finfo(np.float32).tiny)
PROBES = np.array(
    [s * x for x in (0.0, TINY, 1e-30, 1e-6, 0.01, 0.3, 0.5, 1.0, 1.7, 40.0, 1e6, 1e30) for s in (1, -1)], np.float32
)


def signs(call: LayerImport, quantizer: Any, source: Tensor, output: str, role: str) -> Tensor:
    """The bits of a quantizer's output, which must be the sign: +1 for x >= 0, -0.0 included, else -1.

    Raises:
        ConversionError: for a quantizer that produces other values, or another value at some probe.
    """
    name = getattr(quantizer, "name", None) or getattr(quantizer, "__name__", type(quantizer).__name__)
    probes = PROBES.reshape(-1, *(1,) * len(source.shape)) * np.ones((1,) * len(source.shape) + source.shape[-1:], "f")
    if not produces_signs(quantizer, [probes]):
        raise call.error(
            f"its {role} {name!r} produces values other than -1 and +1",
            "accepted are signs such as 'ste_sign' and 'approx_sign', 'ste_heaviside', and DoReFa of 1 to 3 bits",
        )
    produced = np.asarray(quantizer(tf.constant(probes)))
    wrong = np.flatnonzero(np.any(produced != bits_to_signs(sign_bits(probes)), axis=tuple(range(1, probes.ndim))))
    if wrong.size:
        at = PROBES[wrong[0]]
        raise call.error(
            f"its {role} {name!r} produces {produced[wrong[0]].flat[0]:g} at {at:g}, where the sign is "
            f"{1 if at >= 0 else -1:+d}",
            "accepted is +1 for x >= 0 and -1 for x < 0, as 'ste_sign'",
        )
    if source.dtype is DType.BIT:  # the sign of +1 and -1 is itself
        return source
    bits = Tensor(output, DType.BIT, source.shape)
    return call.builder.emit(ir.Bitpack, output, source, bits)


class Operand(NamedTuple):
    """The input of a layer with weights, as it multiplies with it.

    Attributes:
        tensor: the input itself; of levels the first plane.
        planes: the bits that it consists of; none of float32.
        levels: n of the numbers m / n, m = 0 ... n; 1 of signs, 0 of float32.
        is_sign: whether it is -1 and +1, not 0 and 1.
    """

    tensor: Tensor
    planes: tuple[Tensor, ...] = ()
    levels: int = 0
    is_sign: bool = False


def quantized_input(call: LayerImport, source: Tensor) -> Operand:
    """The input as a Larq layer sees it: signs, levels, or the source where there is no quantizer."""
    quantizer = getattr(call.layer, "input_quantizer", None)
    if quantizer is not None and not isinstance(quantizer, lq.quantizers.NoOp):
        count = level_count(quantizer)
        if count:
            return levels(call, quantizer, count, source, f"{call.name}:input")
        source = signs(call, quantizer, source, f"{call.name}:input", "input_quantizer")
    return Operand(source, (source,), 1, True) if source.dtype is DType.BIT else Operand(source)


def levels(call: LayerImport, quantizer: Any, count: int, source: Tensor, output: str) -> Operand:
    """The bit planes of a quantizer to m / n; the thresholds of m are found by bisection over all float32, or over the
    integers q that a tensor holds, which Keras has as q 2^-f rounded to float32."""
    integers = source.dtype in (*ir.STORED, DType.INT64)
    source = source if integers or source.dtype is DType.INT32 else call.builder.as_float(source)

    def level(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.rint(np.asarray(quantizer(tf.constant(x, tf.float32))) * np.float32(count))

    def below(limit: int) -> Callable[[NDArray[np.float32]], NDArray[np.uint8]]:
        return lambda x: (level(x) < limit).astype(np.uint8)

    def integers_below(limit: int) -> Callable[[NDArray[np.integer]], NDArray[np.uint8]]:
        return lambda q: below(limit)(np.ldexp(q.astype(np.float32), -source.scale_bits))

    thresholds = np.zeros((count, source.channels), source.dtype.numpy if integers else np.float32)
    for i in range(count):
        if integers:
            limit = 1 << EXACT_BITS if source.dtype is DType.INT64 else clip_limit(8 * source.dtype.numpy.itemsize)
            found = arithmetic.find_thresholds(-limit, limit, source.channels, integers_below(i + 1))
            thresholds[i] = found.threshold
        else:
            thresholds[i] = arithmetic.find_float_thresholds(1, below(i + 1)).threshold
    planes = count.bit_length()
    names = [output] if planes == 1 else [f"{output}:{j}" for j in range(planes)]
    bits = [Tensor(name, DType.BIT, source.shape) for name in names]
    call.builder.emit_all(ir.Bitpack, output, source, bits, thresholds=thresholds[0] if planes == 1 else thresholds)
    return Operand(bits[0], tuple(bits), count)


def level_numbers(call: LayerImport, operand: Operand, output: str) -> Tensor:
    """m / n of an operand of levels, as float32."""
    terms: list[Tensor] = []
    for j, plane in enumerate(operand.planes):
        half = np.full(plane.channels, 2.0 ** (j - 1), np.float32)
        term = Tensor(f"{plane.name}:weighted", DType.FLOAT32, plane.shape)
        number = call.builder.as_float(plane)
        terms.append(call.emit(ir.Affine, number, term, multiplier=half, offset=half))
    total = terms[0]
    for j, term in enumerate(terms[1:], 1):
        result = Tensor(f"{output}:sum{j}", DType.FLOAT32, total.shape)
        total = call.emit_many(ir.Arithmetic, [total, term], result, kind=ArithmeticKind.ADD)
    part = np.full(total.channels, np.float32(1) / np.float32(operand.levels), np.float32)
    return call.emit(ir.Affine, total, Tensor(output, DType.FLOAT32, total.shape), multiplier=part)


def quantized_kernel(call: LayerImport, name: str = "kernel") -> NDArray[np.float32]:
    """A kernel's values as the layer multiplies with them."""
    with quantized_scope(True):
        return call.constant(name, tf.convert_to_tensor(getattr(call.layer, name)).numpy())


def kernel_signs(call: LayerImport) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The kernel and what multiplies the accumulator of each filter, not rounded; of a scaled kernel its signs.

    The latter is None where that is 1, or where it is not the layer that says so, but its kernel and its input.
    """
    kernel = quantized_kernel(call)
    if not getattr(call.layer, "has_scale", False):
        return kernel, None
    try:
        scale = call.layer.accumulator_scale()
    except ValueError as error:
        raise call.error(str(error), "use a kernel_quantizer such as 'magnitude_aware_sign'") from None
    return bits_to_signs(sign_bits(kernel)).astype(np.float32) if call.layer.scaled_kernel else kernel, scale


def accumulator_clip(call: LayerImport) -> tuple[int, int] | None:
    """Bits and log2 of the step of the layer's clip; none where it has none or it is switched off."""
    quantizer = getattr(call.layer, "accumulator_quantizer", None)
    if quantizer is None:
        return None
    if not isinstance(quantizer, AccumulatorClip):
        raise call.error(
            f"its accumulator_quantizer is a {type(quantizer).__name__}",
            "accepted is larq_clip.quantizers.AccumulatorClip",
        )
    return (quantizer.bits, step_exponent(quantizer.step)) if quantizer.enabled else None
