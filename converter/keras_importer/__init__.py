"""Import a Keras 2 model: Sequential or functional, with Larq or larq_clip layers. The only room that sees TensorFlow.

The imported graph computes what the layers compute one by one, as in ``model(images, training=False)``. Of a Keras
layer X it has the tensors ``X:input``, ``X:accumulator``, ``X:clipped``, ``X:linear`` (before the activation) as far as
they exist, and X itself, the layer's output. Layers that do nothing in inference (Dropout, a linear Activation, Flatten
of a vector) leave no trace.
"""

from __future__ import annotations

from typing import Any

from larq_clip._keras import keras
from larq_clip.converter import ir
from larq_clip.converter.keras_importer.context import GraphBuilder, LayerImport
from larq_clip.converter.keras_importer.layers import HANDLERS, supported_layers
from larq_clip.errors import ConversionError


def import_model(model: Any) -> ir.Graph:
    """The graph of a Keras model, with weights and clips as they are now.

    Raises:
        ConversionError: names the layer that cannot be imported, its type, why, and what to do.
    """
    _require_graph_network(model)
    builder = GraphBuilder()
    tensors: dict[int, ir.Tensor] = {}
    for keras_tensor in model.inputs:
        tensors[id(keras_tensor)] = _import_input(builder, keras_tensor)
    calls: dict[str, int] = {}
    for node in _nodes(model):
        if node.is_input:
            continue
        layer = node.layer
        number = calls[layer.name] = calls.get(layer.name, 0) + 1
        call = LayerImport(builder, layer, layer.name if number == 1 else f"{layer.name}#{number}")
        sources, results = _as_list(node.keras_inputs), _as_list(node.outputs)
        if isinstance(layer, keras.Model):
            raise call.error(
                "models inside of models are not supported",
                "apply its layers one by one: for layer in inner.layers: x = layer(x)",
            )
        if type(layer) not in HANDLERS:
            raise call.error(
                "layers of this type are not supported",
                f"supported are {supported_layers()}; convert the part of the model without it",
            )
        if len(sources) != 1 or len(results) != 1:
            raise call.error(f"it has {len(sources)} inputs and {len(results)} outputs", "give it one tensor")
        if node.call_kwargs.get("training"):
            raise call.error("it is called with training=True, so that it trains even in predict", "leave that out")
        if layer.compute_dtype != "float32":
            raise call.error(f"it computes in {layer.compute_dtype}", "build it with dtype='float32'")
        tensors[id(results[0])] = HANDLERS[type(layer)](call, tensors[id(sources[0])])
    outputs = [tensors[id(t)].name for t in model.outputs]
    idle = [name for name in outputs if name in builder.inputs]
    if idle:
        raise ConversionError(f"model {model.name!r}: its output is its input {idle[0]!r}; nothing is left to convert")
    return builder.graph(model.name, outputs)


def _require_graph_network(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ConversionError(
            f"the model is a {type(model).__module__}.{type(model).__name__}; accepted are tf.keras.Sequential and "
            "functional tf.keras.Model of Keras 2 (TF_USE_LEGACY_KERAS=1)"
        )
    if not getattr(model, "_is_graph_network", False):
        how = "give its first layer an input_shape" if isinstance(model, keras.Sequential) else "use the functional API"
        raise ConversionError(
            f"model {model.name!r} ({type(model).__name__}) is subclassed or not built, so the order of its layers "
            f"is unknown; {how}"
        )


def _nodes(model: Any) -> list[Any]:
    """Calls of layers, in order of execution."""
    depths = model._nodes_by_depth
    return [node for depth in sorted(depths, reverse=True) for node in depths[depth]]


def _as_list(structure: Any) -> list[Any]:
    return list(structure) if isinstance(structure, (list, tuple)) else [structure]


def _import_input(builder: GraphBuilder, keras_tensor: Any) -> ir.Tensor:
    name, shape, dtype = keras_tensor.name, tuple(keras_tensor.shape[1:]), keras_tensor.dtype
    if len(shape) not in (1, 3) or None in shape:
        raise ConversionError(
            f"input {name!r} has shape {(None, *shape)}; accepted are (batch, height, width, channels) and "
            "(batch, channels) with fixed numbers. Build the model with such an input_shape, e.g. (28, 28, 1)"
        )
    if dtype != "float32":
        raise ConversionError(f"input {name!r} is {getattr(dtype, 'name', dtype)}; accepted is float32")
    return builder.add_input(ir.Tensor(name, ir.DType.FLOAT32, shape))


__all__ = ["import_model"]
