"""What quantizers produce: only that decides whether a tensor or a kernel is binary."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from larq_clip._binary import produces_signs
from larq_clip._keras import lq, tf
from larq_clip.arithmetic import bits_to_signs, sign_bits, step_exponent
from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor
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
            "accepted is a sign such as 'ste_sign' or 'approx_sign'",
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


def quantized_input(call: LayerImport, source: Tensor) -> Tensor:
    """The input as a Larq layer sees it: bits, or the source where there is no quantizer."""
    quantizer = getattr(call.layer, "input_quantizer", None)
    if quantizer is None or isinstance(quantizer, lq.quantizers.NoOp):
        return source
    return signs(call, quantizer, source, f"{call.name}:input", "input_quantizer")


def quantized_kernel(call: LayerImport) -> NDArray[np.float32]:
    """The kernel's values as the layer multiplies with them."""
    with lq.context.quantized_scope(True):
        return call.constant("kernel", tf.convert_to_tensor(call.layer.kernel).numpy())


def kernel_signs(call: LayerImport) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The quantized kernel and None; of a layer with a scaled kernel its signs, and s of each filter, not rounded."""
    kernel = quantized_kernel(call)
    if not getattr(call.layer, "scaled_kernel", False):
        return kernel, None
    try:
        scale = call.layer.kernel_scale()
    except ValueError as error:
        raise call.error(str(error), "use a kernel_quantizer such as 'magnitude_aware_sign'") from None
    return bits_to_signs(sign_bits(kernel)).astype(np.float32), scale


def is_signs(array: NDArray) -> bool:
    """Whether every element is -1 or +1."""
    return bool(np.all(np.abs(array) == 1))


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
