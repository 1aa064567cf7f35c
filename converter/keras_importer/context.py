"""What the handlers of the layers work with: the growing graph, and one call of one layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from larq_clip.converter import ir
from larq_clip.converter.ir import DType, Tensor, Window
from larq_clip.errors import ConversionError


@dataclass(frozen=True)
class Mean:
    """What a pool of means computes of integers in float64: a rational number, for which the IR has no type.

    Attributes:
        name: of the layer.
        source: the integers.
        window: of the pool.
        shape: of the result.
    """

    name: str
    source: Tensor
    window: Window
    shape: tuple[int, ...]


Source: TypeAlias = Tensor | Mean


class GraphBuilder:
    """Collects tensors and ops; `fixed_point` says that the model has layers of fixed point."""

    def __init__(self, *, fixed_point: bool = False) -> None:
        self.fixed_point = fixed_point
        self.inputs: list[str] = []
        self._tensors: dict[str, Tensor] = {}
        self._ops: list[ir.Op] = []

    def add_input(self, tensor: Tensor) -> Tensor:
        self.inputs.append(tensor.name)
        return self._define(tensor)

    def emit(self, op_type: type[ir.Op], name: str, source: Tensor, result: Tensor, **fields: Any) -> Tensor:
        """Append an op from `source` to the new tensor `result`."""
        return self.emit_many(op_type, name, [source], result, **fields)

    def emit_many(
        self, op_type: type[ir.Op], name: str, sources: Sequence[Tensor], result: Tensor, **fields: Any
    ) -> Tensor:
        """Append an op from several tensors to the new tensor `result`."""
        self._ops.append(op_type(name, tuple(source.name for source in sources), (result.name,), **fields))
        return self._define(result)

    def emit_all(
        self, op_type: type[ir.Op], name: str, source: Tensor, results: Sequence[Tensor], **fields: Any
    ) -> None:
        """Append an op from `source` to several new tensors."""
        outputs = tuple(self._define(result).name for result in results)
        self._ops.append(op_type(name, (source.name,), outputs, **fields))

    def _define(self, tensor: Tensor) -> Tensor:
        self._tensors[tensor.name] = tensor
        return tensor

    def as_float(self, tensor: Tensor) -> Tensor:
        """The same values as float32; bits become +1 and -1."""
        if tensor.dtype is DType.FLOAT32:
            return tensor
        name = f"{tensor.name}:float"
        if name in self._tensors:
            return self._tensors[name]
        self._ops.append(ir.to_float(name, tensor, name))
        return self._define(Tensor(name, DType.FLOAT32, tensor.shape))

    def graph(self, name: str, outputs: list[str]) -> ir.Graph:
        return ir.Graph.build(name, self._tensors.values(), self._ops, self.inputs, outputs)


Step = Callable[[Tensor, str], Tensor]  # of a tensor, and the name of the result


class LayerImport:
    """One call of one Keras layer.

    Attributes:
        builder: the graph.
        layer: the Keras layer.
        name: its name; with a number from its second call on.
    """

    def __init__(self, builder: GraphBuilder, layer: Any, name: str):
        self.builder, self.layer, self.name = builder, layer, name

    def error(self, why: str, remedy: str) -> ConversionError:
        """The error to raise: names the layer, its type, why, and what to do."""
        return ConversionError(f"layer {self.name!r} ({type(self.layer).__name__}): {why}; {remedy}")

    def emit(self, op_type: type[ir.Op], source: Tensor, result: Tensor, **fields: Any) -> Tensor:
        return self.builder.emit(op_type, self.name, source, result, **fields)

    def emit_many(self, op_type: type[ir.Op], sources: Sequence[Tensor], result: Tensor, **fields: Any) -> Tensor:
        return self.builder.emit_many(op_type, self.name, sources, result, **fields)

    @contextlib.contextmanager
    def within_limits(self) -> Iterator[None]:
        """Integers that the file's constants cannot hold are an error of the layer."""
        try:
            yield
        except OverflowError as error:
            raise self.error(
                f"its fraction bits and those of its inputs are too far apart: {error}",
                "calibrate the model anew, with data whose range is not nearly 0",
            ) from None

    def run(self, source: Tensor, steps: list[tuple[str, Step]]) -> Tensor:
        """Apply steps one after the other; the last tensor has the layer's name, the others ``name:suffix``."""
        for i, (suffix, step) in enumerate(steps):
            source = step(source, self.name if i == len(steps) - 1 else f"{self.name}:{suffix}")
        return source

    def require(self, attribute: str, *accepted: Any) -> Any:
        """The value of an attribute of the layer, which must be among those accepted."""
        value = getattr(self.layer, attribute)
        value = value.item() if isinstance(value, np.ndarray) else value
        if value not in accepted:
            words = " and ".join(repr(a) for a in accepted)
            raise self.error(f"its {attribute} is {value!r}", f"accepted: {words}")
        return value

    def require_image(self, source: Tensor) -> None:
        """The layer reads an image, channels last."""
        if getattr(self.layer, "data_format", "channels_last") != "channels_last":
            raise self.error("its data_format is 'channels_first'", "use 'channels_last'")
        if len(source.shape) != 3:
            raise self.error(f"its input has shape {(None, *source.shape)}", "give it (batch, height, width, channels)")

    def require_sequence(self, source: Tensor) -> None:
        """The layer reads a sequence, channels last."""
        if getattr(self.layer, "data_format", "channels_last") != "channels_last":
            raise self.error("its data_format is 'channels_first'", "use 'channels_last'")
        if len(source.shape) != 2:
            raise self.error(f"its input has shape {(None, *source.shape)}", "give it (batch, length, channels)")

    def constant(self, what: str, array: Any) -> NDArray[np.float32]:
        """A weight as float32, which must be finite."""
        result = np.asarray(array, np.float32)
        if not np.all(np.isfinite(result)):
            raise self.error(f"its {what} holds NaN or infinity", "train it anew, with a lower learning rate")
        return result

    def window(
        self,
        source: Tensor,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        dilation: tuple[int, int] = (1, 1),
        padding: str = "valid",
    ) -> tuple[Window, tuple[int, int]]:
        """The window that the layer places over its input, and the output's ``(height, width)``."""
        try:
            return Window.place(source.shape, kernel, strides, dilation, padding)
        except ValueError as error:
            raise self.error(str(error), "use another padding or a smaller window") from None


Handler = Callable[[LayerImport, Tensor], Source]
Join = Callable[[LayerImport, "list[Tensor]"], Tensor]
