"""What in a Keras file is code, found without loading it.

A file holds its layers' configuration as JSON. Loading builds the layers from it, and can run what the author chose:

- a Lambda layer holds Python bytecode, or the name of a function in any module that is loaded;
- an object is named by its module, which is imported: only modules of Keras, Larq and larq_clip are accepted;
- a TFSMLayer loads another SavedModel, from a path that the file names;
- a call of a TensorFlow function, TFOpLambda, may name one that reads or writes files: those that compute are accepted.

Keras's own ``safe_mode`` covers the first, in .keras files of version 3 alone. A SavedModel folder holds graphs of
TensorFlow besides, no Python. They do not run here, since its layers are built from their configuration; but the graph
that initializes a resource, such as a table, runs while it is loaded, so a resource counts as code.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("keras", "tf_keras", "larq", "larq_clip", "larq_zoo", "builtins")
# A class of these names is code wherever it comes from.
CODE = {
    "Lambda": "Python code",
    "__lambda__": "Python code",
    "TFSMLayer": "another SavedModel",
    "ClassMethod": "a call of a method",
    "InstanceMethod": "a call of a method",
}
OP_LAYERS = ("TFOpLambda", "SlicingOpLambda")
OP_MODULES = ("__operators__", "math", "nn", "linalg", "bitwise", "image", "signal", "quantization", "keras.backend")
_OPS = """
abs add add_n argmax argmin batch_to_space broadcast_to cast clip_by_norm clip_by_value concat constant
convert_to_tensor cumsum divide einsum equal exp expand_dims eye fill floor gather gather_nd greater greater_equal
identity less less_equal logical_and logical_not logical_or matmul maximum minimum multiply negative norm not_equal
one_hot ones ones_like pad pow range rank reduce_all reduce_any reduce_max reduce_mean reduce_min reduce_prod
reduce_sum repeat reshape reverse roll round scalar_mul shape sigmoid sign size slice space_to_batch
space_to_batch_nd split sqrt square squeeze stack stop_gradient strided_slice subtract tanh tensordot tile transpose
truediv unstack where zeros zeros_like
"""
OPS = frozenset(_OPS.split())


def code_in_file(path: Path) -> list[str]:
    """Descriptions of what loading a .keras or .h5 file or a SavedModel folder would execute, each naming its layer.

    Files are told apart as Keras does. One without a configuration has none; Keras will refuse it.

    Raises:
        ValueError: where the configuration is no JSON, or the file is damaged.
    """
    found = [text for config in _configs(path) for text in code_in_config(config)]
    if path.is_dir() and _has_resources(path):
        found.append("a resource, such as a table, has a graph that initializes it")
    return list(dict.fromkeys(found))


def code_in_config(config: Any, layer: str = "") -> Iterator[str]:
    """The same for the configuration of a model, as parsed from JSON."""
    if isinstance(config, list):
        for part in config:
            yield from code_in_config(part, layer)
    if not isinstance(config, dict):
        return
    own = config.get("config")
    class_name, module = config.get("class_name"), config.get("module")
    if isinstance(class_name, str):
        name = own.get("name") if isinstance(own, dict) else None
        layer = str(name or config.get("name") or layer)
        where = f"layer {layer!r} ({class_name})" if layer else repr(class_name)
        function = own.get("function") if isinstance(own, dict) else None
        if class_name in CODE:
            yield f"{where} is {CODE[class_name]}"
        elif class_name in OP_LAYERS and not _only_computes(function):
            yield f"{where} calls tf.{function}"
        elif isinstance(module, str) and module.split(".")[0] not in PACKAGES:
            yield f"{where} is of the Python module {module!r}"
    for key, part in config.items():
        if key != "compile_config":  # it is not loaded
            yield from code_in_config(part, layer)


def _only_computes(function: Any) -> bool:
    if not isinstance(function, str):
        return False
    module, _, name = function.removeprefix("compat.v1.").rpartition(".")
    return module in OP_MODULES if module else name in OPS


def _configs(path: Path) -> Iterator[Any]:
    if path.is_dir():
        for text in _saved_model_metadata(path):
            yield _parsed(path, text)
    elif path.suffix == ".keras" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "config.json" in archive.namelist():
                yield _parsed(path, archive.read("config.json"))
    else:
        import h5py

        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                if "model_config" in file.attrs:
                    yield _parsed(path, file.attrs["model_config"])


def _saved_model_metadata(path: Path) -> Iterator[str]:
    """The JSON of every object of Keras: in a file of its own or, up to TensorFlow 2.4, with the graph."""
    from larq_clip._keras import keras

    metadata = path / "keras_metadata.pb"
    if metadata.exists():
        root = keras.Model.__module__.split(".")[0]  # keras or tf_keras
        saved_metadata = importlib.import_module(f"{root}.protobuf.saved_metadata_pb2").SavedMetadata
        for node in _proto(saved_metadata, metadata).nodes:
            yield node.metadata
    for node in _objects(path):
        yield node.user_object.metadata


def _has_resources(path: Path) -> bool:
    return any(node.WhichOneof("kind") == "resource" for node in _objects(path))


def _objects(path: Path) -> Iterator[Any]:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    for graph in _proto(SavedModel, path / "saved_model.pb").meta_graphs:
        yield from graph.object_graph_def.nodes


def _proto(message: Any, path: Path) -> Any:
    try:
        return message.FromString(path.read_bytes())
    except Exception as error:  # protobuf's implementations have different ones
        raise ValueError(f"{path} is damaged: {error}") from error


def _parsed(path: Path, text: str | bytes) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: the configuration of its layers is damaged: {error}") from error
