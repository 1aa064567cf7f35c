"""The C runtime against the NumPy reference, bit for bit, on every instruction set, over the grid of shapes.

A case is a model of one binary convolution with a float32 input, evaluated by `ir.evaluate`. Three epilogues show
everything: the bits of a threshold, the int8 of a clip and, as float32 with multiplier 1, the accumulator itself.
"""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
from support import neon_outputs

import larq_clip
from larq_clip import arithmetic
from larq_clip.converter import ir, writer
from larq_clip.interpreter import available_isas

CHANNELS = (1, 3, 8, 31, 64, 65, 100, 128, 512)
EPILOGUES = ("threshold", "clip", "accumulator")


@dataclass(frozen=True)
class Case:
    in_channels: int
    out_channels: int
    kernel: int
    size: tuple[int, int]
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    padding: str = "same"
    pad_value: int = 0
    step_log2: int = 0
    data: str = "random"

    def __str__(self) -> str:
        return (
            f"{self.size[0]}x{self.size[1]}x{self.in_channels}-{self.out_channels} k{self.kernel} s{self.stride} "
            f"d{self.dilation} g{self.groups} {self.padding} pad{self.pad_value} step2^{self.step_log2} {self.data}"
        )


def grid() -> list[Case]:
    """Every channel count, kernel, stride, padding and pad value, in combinations that keep the whole small."""
    cases = []
    paddings = itertools.cycle([("same", 0), ("same", 1), ("same", -1), ("valid", 0)])
    outs = itertools.cycle((65, 8, 128, 31, 100, 3, 64, 1, 512))
    for channels, kernel, stride in itertools.product(CHANNELS, (1, 3, 5, 7), (1, 2)):
        padding, pad_value = next(paddings)
        size = (7, 9) if kernel < 7 else (8, 7)
        cases.append(Case(channels, next(outs), kernel, size, stride, padding=padding, pad_value=pad_value))
    for pad_value, stride, channels in itertools.product((0, 1, -1), (1, 2), (31, 64, 100)):
        cases.append(Case(channels, 40, 3, (6, 6), stride, pad_value=pad_value))
        cases.append(Case(channels, 24, 3, (9, 8), 1, dilation=2, pad_value=pad_value))
    for groups, channels, outs_ in ((2, 128, 64), (2, 64, 48), (4, 20, 12), (3, 9, 6), (2, 256, 130)):
        cases.append(Case(channels, outs_, 3, (5, 6), groups=groups))
        cases.append(Case(channels, outs_, 3, (5, 6), 2, groups=groups, pad_value=1))
    for data in ("ones", "opposed"):
        cases += [Case(512, 65, 3, (4, 4), data=data), Case(100, 33, 7, (7, 7), padding="valid", data=data)]
        cases.append(Case(512, 16, 7, (7, 7), padding="valid", data=data))  # K = 25088, near the 16-bit limit
        cases.append(Case(1024, 8, 7, (7, 7), padding="valid", data=data))  # K = 50176, the wide kernel
    for step_log2 in (-1, 1, 2, 3, 5):
        cases.append(Case(100, 70, 3, (6, 5), step_log2=step_log2))
        cases.append(Case(33, 20, 3, (6, 5), step_log2=step_log2, pad_value=-1))
    cases.append(Case(1024, 9, 7, (7, 8), padding="same", pad_value=1))
    cases.append(Case(64, 64, 3, (1, 1), padding="same"))
    cases.append(Case(64, 64, 5, (2, 3), padding="same", pad_value=-1))
    return cases


def build(case: Case, epilogue: str) -> tuple[ir.Graph, np.ndarray]:
    """The model and two images."""
    rng = np.random.default_rng(zlib.crc32(str(case).encode()))
    shape = (*case.size, case.in_channels)
    window, (out_h, out_w) = ir.Window.place(
        shape, (case.kernel, case.kernel), (case.stride,) * 2, (case.dilation,) * 2, case.padding
    )
    weights = rng.integers(
        0, 2, (case.out_channels, case.kernel, case.kernel, case.in_channels // case.groups), np.uint8
    )
    images = rng.standard_normal((2, *shape)).astype(np.float32)
    images[rng.random(images.shape) < 0.1] = -0.0
    if case.data != "random":
        weights[:] = 0
        images[:] = 1 if case.data == "ones" else -1
    common = {
        "window": window,
        "weights": weights,
        "groups": case.groups,
        "pad_value": case.pad_value if case.padding == "same" else 0,
        "step_log2": case.step_log2,
        "clip_limit": 127,
    }
    k = weights[0].size
    result = (out_h, out_w, case.out_channels)
    tensors = [ir.Tensor("x", ir.DType.FLOAT32, shape), ir.Tensor("bits", ir.DType.BIT, shape)]
    ops: list[ir.Op] = [ir.Bitpack("sign", ("x",), ("bits",))]
    if epilogue == "threshold":
        spread = max(1, min(127, int(2 * np.sqrt(k) / 2.0**case.step_log2)))
        thresholds = rng.integers(-spread, spread + 1, case.out_channels)
        thresholds[rng.random(case.out_channels) < 0.1] = -128
        thresholds[rng.random(case.out_channels) < 0.1] = 127
        invert = rng.integers(0, 2, case.out_channels, np.uint8)
        common |= {"thresholds": thresholds.astype(np.int8), "invert": invert}
        tensors += [ir.Tensor("y", ir.DType.BIT, result), ir.Tensor("out", ir.DType.FLOAT32, result)]
        ops.append(ir.BinaryConv2D("conv", ("bits",), ("y",), epilogue=ir.Epilogue.THRESHOLD, **common))
        ops.append(ir.Unpack("unpack", ("y",), ("out",)))
    elif epilogue == "clip":
        fraction = (-case.step_log2,)
        tensors += [ir.Tensor("y", ir.DType.INT8, result, fraction), ir.Tensor("out", ir.DType.FLOAT32, result)]
        ops.append(ir.BinaryConv2D("conv", ("bits",), ("y",), epilogue=ir.Epilogue.CLIP, **common))
        ops.append(ir.Affine("affine", ("y",), ("out",)))
    else:
        common |= {"clip_limit": 0, "step_log2": 0}
        one = np.ones(case.out_channels, np.float32)
        tensors.append(ir.Tensor("out", ir.DType.FLOAT32, result))
        ops.append(
            ir.BinaryConv2D(
                "conv", ("bits",), ("out",), epilogue=ir.Epilogue.AFFINE, multiplier=one, offset=0 * one, **common
            )
        )
    return ir.Graph.build("case", tensors, ops, ["x"], ["out"]), images


@pytest.mark.parametrize("isa", available_isas())
def test_runtime_equals_reference(isa):
    """All cases in one test an instruction set: a failure lists every case that differs."""
    different = []
    for case, epilogue in itertools.product(grid(), EPILOGUES):
        graph, images = build(case, epilogue)
        expected = ir.evaluate(graph, {"x": images})["out"]
        got = larq_clip.Interpreter(writer.write(graph), isa=isa).predict(images)
        if not np.array_equal(got, expected):
            different.append(f"{case} {epilogue}: {np.count_nonzero(got != expected)} of {got.size}")
    assert not different


@pytest.mark.aarch64
def test_neon_equals_reference(aarch64_cli, tmp_path):
    different = []
    for case, epilogue in itertools.product(grid(), EPILOGUES):
        graph, images = build(case, epilogue)
        got = neon_outputs(aarch64_cli, writer.write(graph), images, tmp_path)
        expected = ir.evaluate(graph, {"x": images})["out"]
        if not np.array_equal(got, expected):
            different.append(f"{case} {epilogue}: {np.count_nonzero(got != expected)} of {got.size}")
    assert not different


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_the_result(threads):
    for case in grid()[::9]:
        graph, images = build(case, "threshold")
        data = writer.write(graph)
        expected = larq_clip.Interpreter(data).predict(images)
        np.testing.assert_array_equal(larq_clip.Interpreter(data, num_threads=threads).predict(images), expected)


@pytest.mark.parametrize("case", grid()[5::16])
def test_reference_equals_larq(case):
    """The NumPy reference against Larq's own layer, the specification: the accumulator."""
    import larq as lq

    from larq_clip._keras import keras

    graph, images = build(case, "accumulator")
    weights = graph.producer("out").weights
    layer = lq.layers.QuantConv2D(
        case.out_channels,
        case.kernel,
        case.stride,
        case.padding,
        dilation_rate=case.dilation,
        groups=case.groups,
        pad_values=float(case.pad_value) if case.padding == "same" else 0.0,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        use_bias=False,
    )
    model = keras.Sequential([keras.layers.InputLayer(images.shape[1:]), layer])
    layer.set_weights([arithmetic.bits_to_signs(weights, np.float32).transpose(1, 2, 3, 0)])
    np.testing.assert_array_equal(ir.evaluate(graph, {"x": images})["out"], model.predict(images, verbose=0))
