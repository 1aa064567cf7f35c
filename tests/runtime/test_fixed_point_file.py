"""A file of fixed-point ops, written by the official FlatBuffers library alone, against `larq_clip.fixed_point`."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import flatbuffers
import numpy as np
import pytest

from larq_clip import arithmetic, fixed_point
from larq_clip.converter.schema import larq_clip_generated as schema
from larq_clip.interpreter import Interpreter, available_isas

HEIGHT, WIDTH, INPUTS, OUTPUTS = 6, 5, 16, 24
DTYPES = {"bit": 0, "i1": 1, "i2": 2, "i4": 3, "f4": 4, "i8": 5}


class File:
    """Children are created before their parents, as FlatBuffers wants it; `constants` and `tensors` are offsets."""

    def __init__(self):
        self.builder = flatbuffers.Builder(1 << 12)
        self.constants: list[int] = []
        self.tensors: list[int] = []
        self.names: list[str] = []
        self.ops: list[int] = []
        self.arena_bytes = 0

    def table(self, name: str, **fields) -> int:
        getattr(schema, f"{name}Start")(self.builder)
        for field, value in fields.items():
            # A struct is created where it is used, inside its table.
            value = schema.CreateWindow(self.builder, *value) if field == "Window" else value
            getattr(schema, f"{name}Add{field}")(self.builder, value)
        return getattr(schema, f"{name}End")(self.builder)

    def offsets(self, offsets: list[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self.builder.EndVector()

    def numbers(self, numbers, dtype: str) -> int:
        return self.builder.CreateNumpyVector(np.asarray(numbers, dtype))

    def constant(self, array: np.ndarray, dtype: str) -> int:
        data = np.ascontiguousarray(array, f"<{dtype}").tobytes()
        self.builder.StartVector(1, len(data), 16)
        self.builder.head -= len(data)
        self.builder.Bytes[self.builder.head : self.builder.head + len(data)] = data
        vector, shape = self.builder.EndVector(), self.numbers(array.shape, "<u4")
        self.constants.append(self.table("Constant", Dtype=DTYPES[dtype], Shape=shape, Data=vector))
        return len(self.constants) - 1

    def tensor(self, name: str, dtype: str, shape: tuple[int, ...], fraction_bits=()) -> int:
        fields = {"Name": self.builder.CreateString(name), "Shape": self.numbers(shape, "<u4")}
        if len(fraction_bits):
            fields["FractionBits"] = self.numbers(fraction_bits, "<i1")
        self.tensors.append(self.table("Tensor", Dtype=DTYPES[dtype], Offset=self.arena_bytes, **fields))
        self.names.append(name)
        self.arena_bytes += 4096
        return len(self.tensors) - 1

    def fixed_point(self, steps: list[dict], stores: list[dict]) -> int:
        step_tables = self.offsets([self.table("Step", **step) for step in steps])
        store_tables = self.offsets([self.table("Store", **store) for store in stores])
        return self.table("FixedPoint", Steps=step_tables, Stores=store_tables)

    def op(self, kind: str, inputs: list[str], outputs: list[str], **fields) -> None:
        name, params = self.builder.CreateString("+".join(outputs)), self.table(kind, **fields)
        read, written = ([self.names.index(n) for n in names] for names in (inputs, outputs))
        ends = {"Inputs": self.numbers(read, "<u4"), "Outputs": self.numbers(written, "<u4")}
        kind_number = getattr(schema.OpParams, kind)
        self.ops.append(self.table("Op", Name=name, ParamsType=kind_number, Params=params, **ends))

    def finish(self, inputs: list[str], outputs: list[str]) -> bytes:
        vectors = {
            "Tensors": self.offsets(self.tensors),
            "Constants": self.offsets(self.constants),
            "Ops": self.offsets(self.ops),
            "Inputs": self.numbers([self.names.index(n) for n in inputs], "<u4"),
            "Outputs": self.numbers([self.names.index(n) for n in outputs], "<u4"),
        }
        self.builder.Finish(self.table("Model", Version=1, ArenaBytes=self.arena_bytes, **vectors), b"LCB1")
        return bytes(self.builder.Output())


@pytest.fixture(scope="module")
def numbers() -> dict:
    """Parameters of: quantize -> int8 convolution -> batch norm -> int8; + quantized shortcut -> int16, sign, float."""
    rng = np.random.default_rng(3)
    norm = fixed_point.BatchNorm(
        *(rng.normal(1, 0.5, OUTPUTS), rng.normal(0, 0.5, OUTPUTS), rng.normal(0, 3, OUTPUTS)),
        rng.uniform(2, 9, OUTPUTS),
        1e-3,
    )
    chosen = fixed_point.choose_format(norm, granularity="channel")
    kernel = rng.normal(0, 0.3, (OUTPUTS, 3, 3, INPUTS))
    steps = fixed_point.kernel_steps(np.abs(kernel).max(axis=(1, 2, 3)))[:, None, None, None]
    return {
        "norm": fixed_point.quantize_batch_norm(norm, chosen),
        "kernel": fixed_point.quantize_kernel(kernel, steps),
        "bias": rng.integers(-2000, 2000, OUTPUTS).astype(np.int32),
        "y_bits": rng.integers(3, 6, OUTPUTS),
        "r_bits": rng.integers(9, 13, OUTPUTS),
        "z_bits": rng.integers(8, 14, OUTPUTS),
        "x": rng.normal(0, 2, (3, HEIGHT, WIDTH, INPUTS)).astype(np.float32),
        "r": rng.normal(0, 2, (3, HEIGHT, WIDTH, OUTPUTS)).astype(np.float32),
    }


X_BITS, MEAN_BITS = 5, 4


def model(n: dict) -> bytes:
    file = File()
    image, sums = (HEIGHT, WIDTH, INPUTS), (HEIGHT, WIDTH, OUTPUTS)
    file.tensor("x", "f4", image)
    file.tensor("r", "f4", sums)
    file.tensor("xq", "i1", image, [X_BITS])
    file.tensor("rq", "i2", sums, n["r_bits"])
    file.tensor("y", "i1", sums, n["y_bits"])
    file.tensor("z", "i2", sums, n["z_bits"])
    file.tensor("z_sign", "bit", sums)
    file.tensor("z_float", "f4", sums)
    file.tensor("mean", "i1", (OUTPUTS,), [MEAN_BITS])
    file.op("Quantize", ["x"], ["xq"])
    file.op("Quantize", ["r"], ["rq"])
    kernel, norm = n["kernel"], n["norm"]
    accumulator_bits = X_BITS + kernel.fraction_bits.ravel()
    left, right = np.maximum(-accumulator_bits, 0), np.maximum(accumulator_bits, 0)
    multiplier = (kernel.mantissa.ravel() * norm.multiplier) << left
    bits = np.asarray(norm.fraction_bits) + right
    affine = {
        "Kind": schema.StepKind.Affine,
        "Multiplier": file.constant(multiplier, "i4"),
        "Offset": file.constant(norm.offset.astype(np.int64) << right, "i8"),
    }
    fixed = file.fixed_point([affine], [{"Shift": file.constant(bits - n["y_bits"], "i1")}])
    weights, bias = file.constant(kernel.weights, "i1"), file.constant(n["bias"], "i4")
    window = (3, 3, 1, 1, 1, 1, 1, 1)
    file.op("Int8Conv2D", ["xq"], ["y"], Window=window, Weights=weights, Bias=bias, FixedPoint=fixed)
    common = np.maximum(n["y_bits"], n["r_bits"])
    add = {
        "Kind": schema.StepKind.Add,
        "Operand": 1,
        "Shift": file.constant(common - n["y_bits"], "i1"),
        "OperandShift": file.constant(common - n["r_bits"], "i1"),
    }
    stores = [{"Shift": file.constant(common - n["z_bits"], "i1")}, {}, {"Shift": file.constant(common, "i1")}]
    file.op("Elementwise", ["y", "rq"], ["z", "z_sign", "z_float"], FixedPoint=file.fixed_point([add], stores))
    file.op("AveragePool2D", ["z"], ["mean"], Window=(HEIGHT, WIDTH, 1, 1, 1, 1, 0, 0))
    return file.finish(["x", "r"], ["mean"])


def reference(n: dict) -> dict[str, np.ndarray]:
    xq = fixed_point.store_reals(n["x"], X_BITS)
    rq = fixed_point.store_reals(n["r"], n["r_bits"], bits=16)
    axes = (arithmetic.window_axis(HEIGHT, 3, padding="same"), arithmetic.window_axis(WIDTH, 3, padding="same"))
    accumulator, bits = fixed_point.int8_conv2d(xq, n["kernel"], n["bias"], axes)
    normed, bits = fixed_point.affine(accumulator, n["norm"], X_BITS + bits)
    y = fixed_point.store(normed, bits, n["y_bits"])
    total, bits = fixed_point.add((y, n["y_bits"]), (rq, n["r_bits"]))
    z = fixed_point.store(total, bits, n["z_bits"], bits=16)
    sums, pixels = z.sum(axis=(1, 2)), HEIGHT * WIDTH
    exact = [
        [
            floor(Fraction(int(s), pixels) * Fraction(2) ** int(MEAN_BITS - f) + Fraction(1, 2))
            for s, f in zip(row, n["z_bits"])
        ]
        for row in sums
    ]
    return {
        "xq": xq,
        "rq": rq,
        "y": y,
        "z": z,
        "z_sign": np.where(total < 0, -1, 1),
        "z_float": fixed_point.values(total, bits).astype(np.float32),
        "mean": np.clip(exact, -127, 127),
    }


@pytest.mark.parametrize("isa", available_isas())
def test_every_tensor(isa, numbers):
    data = model(numbers)
    tensors = Interpreter(data, isa=isa, num_threads=2, keep_tensors=True).tensors([numbers["x"], numbers["r"]])
    for name, expected in reference(numbers).items():
        np.testing.assert_array_equal(tensors[name], expected, err_msg=name)
        assert len(np.unique(expected)) > 1, name
