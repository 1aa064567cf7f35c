"""Import a Keras 2 model: Sequential or functional, with Larq or larq_clip layers. The only room that sees TensorFlow.

The imported graph computes what the layers compute one by one, as in ``model(images, training=False)``. Of a Keras
layer X it has the tensors ``X:input``, ``X:accumulator``, ``X:clipped``, ``X:linear`` (before the activation) as far as
they exist, and X itself, the layer's output. Layers that do nothing in inference (Dropout, a linear Activation, Flatten
of a vector) leave no trace. Of a model Y inside of the model, a layer X is called ``Y/X``; from its second call on, a
layer X is called ``X#2``, ``X#3`` and so on.
"""

from __future__ import annotations

from typing import Any

from larq_clip._identify import is_code
from larq_clip._keras import keras, tf
from larq_clip._scope import quantized_scope
from larq_clip.converter import ir
from larq_clip.converter.keras_importer import code
from larq_clip.converter.keras_importer.context import GraphBuilder, LayerImport, Mean, Source
from larq_clip.converter.keras_importer.fixed_point import is_fixed_point
from larq_clip.converter.keras_importer.layers import (
    EXACT_IN_FLOAT64,
    HANDLERS,
    JOINS,
    MEANS,
    UNCAST,
    supported_layers,
)
from larq_clip.errors import ConversionError
from larq_clip.layers import StorageQuantizer


@quantized_scope()
def import_model(model: Any) -> ir.Graph:
    """The graph of a Keras model, with weights and clips as they are now.

    Raises:
        ConversionError: names the layer that cannot be imported, its type, why, and what to do.
    """
    _require_graph_network(model)
    builder = GraphBuilder(fixed_point=is_fixed_point(model))
    given = [_import_input(builder, keras_tensor) for keras_tensor in model.inputs]
    results = [_as_tensor(builder, result) for result in _import_network(builder, model, given, "")]
    idle = {result.name for result in results} & set(builder.inputs)
    if len(idle) == len({result.name for result in results}):
        raise ConversionError(
            f"model {model.name!r}: its output is its input {sorted(idle)[0]!r}; nothing is left to convert, so give "
            "it a layer that computes something in inference"
        )
    return builder.graph(model.name, [result.name for result in results])


def _import_network(builder: GraphBuilder, model: Any, given: list[Source], prefix: str) -> list[Source]:
    """What the outputs of a model are, given its inputs; its layers' names start with `prefix`."""
    tensors: dict[int, Source] = {id(t): source for t, source in zip(model.inputs, given, strict=True)}
    calls: dict[str, int] = {}
    for node in _nodes(model):
        if node.is_input:
            continue
        layer = node.layer
        number = calls[layer.name] = calls.get(layer.name, 0) + 1
        call = LayerImport(builder, layer, prefix + (layer.name if number == 1 else f"{layer.name}#{number}"))
        inputs = list(node.keras_inputs)
        if isinstance(layer, keras.Model):
            _require_graph_network(layer, call)
            if len(inputs) != len(layer.inputs):
                raise call.error(f"it is called with {len(inputs)} tensors", f"give it {len(layer.inputs)}")
            ordered = layer._flatten_to_reference_inputs(node.call_args[0]) if node.call_args else inputs
            sources = [tensors[id(t)] for t in ordered]
            results = _import_network(builder, layer, sources, f"{call.name}/")
        else:
            _require_supported(call, node, len(inputs))
            sources = [_read(call, tensors[id(t)]) for t in inputs]
            results = _handled(call, node, sources)
        tensors.update((id(t), result) for t, result in zip(tf.nest.flatten(node.outputs), results, strict=True))
    return [tensors[id(t)] for t in model.outputs]


def _require_supported(call: LayerImport, node: Any, inputs: int) -> None:
    """Refuse layers without a handler, and calls that compute something else than inference in float32."""
    layer, outputs = call.layer, len(tf.nest.flatten(node.outputs))
    if type(layer) not in HANDLERS and type(layer) not in JOINS and not is_code(layer):
        raise call.error(
            "layers of this type are not supported",
            f"supported are {supported_layers()}; convert the part of the model without it",
        )
    joins = type(layer) in JOINS or is_code(layer)
    if (inputs != 1 and not joins) or (outputs != 1 and not is_code(layer)):
        raise call.error(f"it has {inputs} inputs and {outputs} outputs", "give it one tensor")
    if node.call_kwargs.get("training"):
        raise call.error("it is called with training=True, so that it trains even in predict", "leave that out")
    if layer.compute_dtype != "float32" and not (
        layer.compute_dtype == "float64" and type(layer) in (*EXACT_IN_FLOAT64, *MEANS)
    ):
        raise call.error(f"it computes in {layer.compute_dtype}", "build it with dtype='float32'")


def _read(call: LayerImport, source: Source) -> Source:
    """A tensor as a layer sees it: Keras casts an exact one to float32 where the layer computes in that."""
    layer = call.layer
    if type(layer) is StorageQuantizer:
        return source
    if isinstance(source, Mean):
        if layer.compute_dtype == "float32" and type(layer) not in UNCAST:
            return _as_tensor(call.builder, source)
        raise call.error(
            f"it reads the mean {source.name!r}, which is no fixed-point number before it is rounded",
            "put a larq_clip.layers.StorageQuantizer between the two",
        )
    if type(layer) in MEANS and layer.compute_dtype == "float64" and source.dtype not in ir.STORED:
        raise call.error(
            f"it computes in float64, and its input {source.name!r} is {source.dtype.name.lower()}",
            "store that with larq_clip.layers.StorageQuantizer, or build the layer with dtype='float32'",
        )
    cast = source.dtype is ir.DType.INT64 and layer.compute_dtype == "float32" and type(layer) not in UNCAST
    return call.builder.as_float(source) if cast else source


def _handled(call: LayerImport, node: Any, sources: list[Any]) -> list[Source]:
    if is_code(call.layer):
        return [*code.operation(call, node, sources)]
    if type(call.layer) in JOINS:
        return [JOINS[type(call.layer)](call, sources)]
    return [HANDLERS[type(call.layer)](call, sources[0])]


def _as_tensor(builder: GraphBuilder, source: Source) -> ir.Tensor:
    """A mean that goes on in float32 is computed in it."""
    if isinstance(source, ir.Tensor):
        return source
    result = ir.Tensor(source.name, ir.DType.FLOAT32, source.shape)
    return builder.emit(ir.AveragePool2D, source.name, builder.as_float(source.source), result, window=source.window)


def _require_graph_network(model: Any, call: LayerImport | None = None) -> None:
    where = "" if call is None else f"layer {call.name!r} ({type(model).__name__}): "
    if not isinstance(model, keras.Model):
        raise ConversionError(
            f"the model is a {type(model).__module__}.{type(model).__name__}; accepted are tf.keras.Sequential and "
            "functional tf.keras.Model of Keras 2 (TF_USE_LEGACY_KERAS=1)"
        )
    if not getattr(model, "_is_graph_network", False):
        how = "give its first layer an input_shape" if isinstance(model, keras.Sequential) else "use the functional API"
        raise ConversionError(
            f"{where}model {model.name!r} ({type(model).__name__}) is subclassed or not built, so the order of its "
            f"layers is unknown; {how}"
        )


def _nodes(model: Any) -> list[Any]:
    """Calls of layers, in order of execution."""
    depths = model._nodes_by_depth
    return [node for depth in sorted(depths, reverse=True) for node in depths[depth]]


def _import_input(builder: GraphBuilder, keras_tensor: Any) -> ir.Tensor:
    name, shape, dtype = keras_tensor.name, tuple(keras_tensor.shape[1:]), keras_tensor.dtype
    if len(shape) not in (1, 2, 3) or None in shape:
        raise ConversionError(
            f"input {name!r} has shape {(None, *shape)}; accepted are (batch, height, width, channels), "
            "(batch, length, channels) and (batch, channels) with fixed numbers. Build the model with such an "
            "input_shape, e.g. (28, 28, 1)"
        )
    if dtype != "float32":
        raise ConversionError(f"input {name!r} is {getattr(dtype, 'name', dtype)}; accepted is float32")
    return builder.add_input(ir.Tensor(name, ir.DType.FLOAT32, shape))


__all__ = ["import_model"]
