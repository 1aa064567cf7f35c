"""Graphs for the tests of the converter, built without Keras."""

from __future__ import annotations

import numpy as np

from larq_clip.arithmetic import clip_limit
from larq_clip.converter import ir, spec
from larq_clip.converter.ir import DType, Tensor, Window


class Sketch:
    """Builds a graph op by op; every op reads the last tensor unless told otherwise, and is named as its output."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.tensors = {"x": Tensor("x", DType.FLOAT32, shape)}
        self.ops: list[ir.Op] = []
        self.last = "x"

    def add(
        self, op_type, name: str, dtype=DType.FLOAT32, shape=None, source=None, fraction_bits=(), **fields
    ) -> Sketch:
        read = self.tensors[source or self.last]
        self.tensors[name] = Tensor(name, dtype, shape or read.shape, fraction_bits)
        self.ops.append(op_type(name, (read.name,), (name,), **fields))
        self.last = name
        return self

    def sign(self, name: str, **arguments) -> Sketch:
        return self.add(ir.Bitpack, name, DType.BIT, **arguments)

    def binary_conv(
        self, name: str, channels: int, kernel: int = 3, source=None, groups: int = 1, **arguments
    ) -> Sketch:
        read = self.tensors[source or self.last]
        placed = {k: arguments.pop(k) for k in ("strides", "dilation") if k in arguments}
        window, size = Window.place(read.shape, (kernel, kernel), padding=arguments.pop("padding", "same"), **placed)
        weights = self.rng.integers(0, 2, (channels, kernel, kernel, read.channels // groups)).astype(np.uint8)
        weights = arguments.pop("weights", weights)
        shape = (channels,) if len(read.shape) == 1 else (*size, channels)
        return self.add(
            ir.BinaryConv2D,
            name,
            DType.INT32,
            shape,
            source,
            window=window,
            weights=weights,
            groups=groups,
            **arguments,
        )

    def clip(self, name: str, bits: int = 8, step_log2: int = 0) -> Sketch:
        dtype, fraction_bits = (DType.INT8, (-step_log2,)) if bits <= 8 else (DType.FLOAT32, ())
        return self.add(
            ir.AccumulatorClip, name, dtype, fraction_bits=fraction_bits, limit=clip_limit(bits), step_log2=step_log2
        )

    def conv(
        self, name: str, channels: int, kernel: int = 3, bias: bool = False, groups: int = 1, **arguments
    ) -> Sketch:
        read = self.tensors[arguments.get("source") or self.last]
        window, size = Window.place(read.shape, (kernel, kernel), padding="same")
        weights = dyadic(self.rng, (kernel, kernel, read.channels // groups, channels))
        shape = (channels,) if len(read.shape) == 1 else (*size, channels)
        fields = {"bias": dyadic(self.rng, (channels,))} if bias else {}
        return self.add(
            ir.Conv2D, name, shape=shape, window=window, weights=weights, groups=groups, **fields, **arguments
        )

    def norm(self, name: str, scale: float = 5.0, source=None) -> Sketch:
        n, rng = self.tensors[source or self.last].channels, self.rng
        gamma = rng.normal(size=n)
        gamma[:: max(3, n // 3)] = 0
        return self.add(
            ir.BatchNorm,
            name,
            source=source,
            gamma=gamma.astype("f"),
            beta=rng.normal(size=n).astype("f"),
            mean=np.round(rng.normal(size=n) * scale).astype("f"),
            variance=rng.uniform(0.5, scale**2, n).astype("f"),
            epsilon=1e-3,
        )

    def pool(self, name: str, size: int = 2, op_type=ir.MaxPool2D, padding: str = "valid", source=None) -> Sketch:
        read = self.tensors[source or self.last]
        window, out = Window.place(read.shape, (size, size), (size, size), padding=padding)
        shape = (*out, read.channels)
        return self.add(op_type, name, read.dtype, shape, source, read.fraction_bits, window=window)

    def relu(self, name: str, source=None) -> Sketch:
        return self.add(ir.Affine, name, source=source, activation=ir.Activation.RELU)

    def flatten(self, name: str, source=None) -> Sketch:
        read = self.tensors[source or self.last]
        shape = (int(np.prod(read.shape)),)
        return self.add(ir.Reshape, name, read.dtype, shape, source, read.reshaped(name, shape).fraction_bits)

    # ---- Between the layers of plain models ----

    def arithmetic(self, name: str, kind: str, other: str, source=None) -> Sketch:
        """`kind`, such as "add", of a tensor and another one."""
        read = [self.tensors[source or self.last], self.tensors[other]]
        shape = tuple(map(max, *(ir.image_shape(t.shape) for t in read)))
        shape = shape[-max(len(t.shape) for t in read) :]
        self.tensors[name] = Tensor(name, DType.FLOAT32, shape)
        sources = tuple(t.name for t in read)
        self.ops.append(ir.Arithmetic(name, sources, (name,), ir.ArithmeticKind[kind.upper()]))
        self.last = name
        return self

    def prelu(self, name: str, shared: tuple[bool, bool, bool] = (True, True, False), source=None) -> Sketch:
        """With one slope for all places of the shared axes."""
        axes = ir.image_shape(self.tensors[source or self.last].shape)
        slope = dyadic(self.rng, tuple(1 if one else axis for one, axis in zip(shared, axes)))
        return self.add(ir.PReLU, name, source=source, slope=slope)

    def planes(self, name: str, count: int, thresholds=None, invert=None, source=None) -> Sketch:
        """Bit planes ``name0``, ``name1`` ... of the levels between random thresholds, where none are given."""
        read, names = self.tensors[source or self.last], tuple(f"{name}{j}" for j in range(count))
        if thresholds is None:
            thresholds = np.sort(dyadic(self.rng, (2**count - 1, read.channels)), 0)
            if read.dtype is not DType.FLOAT32:
                thresholds = (thresholds * 64).astype(read.dtype.numpy)
        self.tensors.update({n: Tensor(n, DType.BIT, read.shape) for n in names})
        self.ops.append(ir.Bitpack(name, (read.name,), names, thresholds, invert))
        self.last = names[-1]
        return self

    def slice(self, name: str, shape: tuple[int, ...], source=None, **fields) -> Sketch:
        read = self.tensors[source or self.last]
        return self.add(ir.Slice, name, read.dtype, shape, source, read.fraction_bits, **fields)

    def depth_to_space(self, name: str, block_h: int, block_w: int, source=None) -> Sketch:
        read = self.tensors[source or self.last]
        height, width, channels = ir.image_shape(read.shape)
        shape = (height * block_h, width * block_w, channels // (block_h * block_w))
        bits = ir.shortest(read.scale_bits[: shape[2]]) if read.fraction_bits else ()
        return self.add(ir.DepthToSpace, name, read.dtype, shape, source, bits, block_h=block_h, block_w=block_w)

    # ---- Fixed point: `exact` ops write int64, and sums start from the last tensor ----

    def elementwise(self, name: str, dtype=DType.INT64, source=None, others=(), fraction_bits=(), **steps) -> Sketch:
        read = self.tensors[source or self.last]
        self.tensors[name] = Tensor(name, dtype, read.shape, fraction_bits)
        self.ops.append(ir.Elementwise(name, (read.name, *others), (name,), ir.FixedPoint(**steps)))
        self.last = name
        return self

    def quantize(self, name: str, dtype=DType.INT8, fraction_bits=(), source=None) -> Sketch:
        return self.add(ir.Quantize, name, dtype, source=source, fraction_bits=fraction_bits)

    def exact_norm(self, name: str, source=None, multiplier=None, offset=None) -> Sketch:
        """y = multiplier y + offset; random, of both signs and sometimes 0, where not given."""
        read = self.tensors[source or self.last]
        n, rng = read.channels, self.rng
        if multiplier is None:
            multiplier = rng.integers(-900, 900, n)
            multiplier[:: max(3, n // 3)] = 0
        offset = rng.integers(-9000, 9000, n) if offset is None else offset
        bits = tuple(f + 8 for f in read.fraction_bits) or (8,)
        return self.elementwise(
            name, source=source, fraction_bits=bits, steps=ir.affine_step(np.asarray(multiplier), np.asarray(offset))
        )

    def exact_relu(self, name: str, source=None) -> Sketch:
        read = self.tensors[source or self.last]
        return self.elementwise(
            name, read.dtype, source, fraction_bits=read.fraction_bits, steps=(ir.Step(ir.StepKind.RELU),)
        )

    def sum(self, name: str, other: str, source=None) -> Sketch:
        """The exact sum with another tensor."""
        a, b = self.tensors[source or self.last], self.tensors[other]
        common = np.maximum(a.scale_bits, b.scale_bits)
        step = ir.add_step(1, common - a.scale_bits, common - b.scale_bits)
        return self.elementwise(name, source=source, others=(other,), fraction_bits=ir.shortest(common), steps=(step,))

    def store(self, name: str, dtype=DType.INT8, fraction_bits=(0,), source=None) -> Sketch:
        read = self.tensors[source or self.last]
        wanted = np.broadcast_to(np.asarray(fraction_bits), (read.channels,))
        stores = (ir.shift_store(read.scale_bits - wanted),)
        return self.elementwise(name, dtype, source, fraction_bits=tuple(fraction_bits), stores=stores)

    def int8_conv(
        self, name: str, channels: int, kernel: int = 3, bias: bool = False, source=None, groups: int = 1
    ) -> Sketch:
        read, rng = self.tensors[source or self.last], self.rng
        window, size = Window.place(read.shape, (kernel, kernel), padding="same")
        weights = rng.integers(-127, 128, (channels, kernel, kernel, read.channels // groups)).astype(np.int8)
        shape = (channels,) if len(read.shape) == 1 else (*size, channels)
        return self.add(
            ir.Int8Conv2D,
            name,
            DType.INT64,
            shape,
            source,
            (12,),
            window=window,
            weights=weights,
            groups=groups,
            bias=rng.integers(-999, 999, channels).astype(np.int32) if bias else None,
            fixed_point=ir.FixedPoint(ir.affine_step(rng.integers(1, 256, channels))),
        )

    def join(self, name: str, *sources: str) -> Sketch:
        read = [self.tensors[source] for source in sources]
        shape = (*read[0].shape[:-1], sum(t.channels for t in read))
        bits = ir.shortest(np.concatenate([t.scale_bits for t in read])) if read[0].dtype in ir.INTEGERS else ()
        self.tensors[name] = Tensor(name, max(t.dtype for t in read), shape, bits)
        self.ops.append(ir.Concatenate(name, sources, (name,)))
        self.last = name
        return self

    def graph(self, *outputs: str) -> ir.Graph:
        graph = ir.Graph.build("sketch", self.tensors.values(), self.ops, ("x",), outputs or (self.last,))
        spec.check(graph)
        return graph


def dyadic(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 1/64 in [-1, 1): float32 sums of their products are exact."""
    return (rng.integers(-64, 64, shape) / 64).astype(np.float32)


def run(graph: ir.Graph, count: int = 4, seed: int = 1) -> dict[str, np.ndarray]:
    """Every tensor of a graph for some dyadic images."""
    shape = graph.tensors["x"].shape
    return ir.evaluate(graph, {"x": dyadic(np.random.default_rng(seed), (count, *shape))})


def numbers(graph: ir.Graph, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A tensor's values as float32, whatever its type."""
    return ir.values(arrays[name], graph.tensors[name])


def assert_same(before: ir.Graph, after: ir.Graph, *, approximate: tuple[str, ...] = (), rtol: float = 0.0) -> None:
    """Both graphs give every tensor that they share the same values, element for element in row-major order.

    Tensors named in `approximate` may differ by `rtol` of their largest magnitude.
    """
    old, new = run(before), run(after)
    shared = [name for name in new if name in old]
    assert set(before.outputs) <= set(shared)
    for name in shared:
        a, b = numbers(before, old, name).ravel(), numbers(after, new, name).ravel()
        if name in approximate:
            np.testing.assert_allclose(b, a, rtol=0, atol=rtol * max(1.0, float(np.abs(a).max())), err_msg=name)
        else:
            np.testing.assert_array_equal(b, a, err_msg=name)


def ops_of(graph: ir.Graph, op_type: type[ir.Op]) -> list:
    return [op for op in graph.ops if isinstance(op, op_type)]


def types(graph: ir.Graph) -> list[str]:
    return [op.type for op in graph.ops]
