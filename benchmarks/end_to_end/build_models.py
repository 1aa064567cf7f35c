"""The model files of one network, for every engine, from one Keras model with random weights.

    python benchmarks/end_to_end/build_models.py BinaryResNetE18 build/end_to_end/BinaryResNetE18 --peers build/peers

Writes into the folder: integer.lcb (clipped and quantized) and plain.lcb of larq_clip, binary.tflite of larq-compute-
engine, and of the same topology with ordinary convolutions float32.tflite, int8.tflite, float32.onnx and int8.onnx;
image.npy, and in expected.npz what Keras computes of it: "integer", "binary" and "ordinary". Last, models.json says
which files were made and, of the others, why not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent.parent
for folder in ("tests", "benchmarks/accuracy"):
    sys.path.insert(0, str(ROOT / folder))

from larq_clip._keras import keras, lq, tf  # noqa: E402
from larq_clip._scope import quantized_scope  # noqa: E402

CLASSES = {"vgg_small": 10, "vgg_11": 10}
SIZE = {"vgg_small": 32, "vgg_11": 32}


def keras_model(name: str) -> tuple[Any, np.ndarray]:
    """The network, its batch norms fitted to random images, and those images."""
    import networks
    import zoo_support

    size = SIZE.get(name, 224)
    images = np.random.default_rng(5).normal(size=(2, size, size, 3)).astype(np.float32)
    keras.utils.set_random_seed(3)
    if name in networks.NETWORKS:
        model = networks.NETWORKS[name](1.0)
    else:
        model = zoo_support.factory(name)(input_shape=images.shape[1:], weights=None, num_classes=1000)
    zoo_support.as_if_trained(model, images)
    return model, images


def full_precision(model: Any) -> Any:
    """The same topology with Keras' own layers instead of Larq's: inputs, weights and sums are real numbers."""
    classes = {
        lq.layers.QuantConv2D: keras.layers.Conv2D,
        lq.layers.QuantDepthwiseConv2D: keras.layers.DepthwiseConv2D,
        lq.layers.QuantDense: keras.layers.Dense,
    }
    dropped = ("quantizer", "pad_values", "constraint", "regularizer", "metrics", "initializer")

    def clone(layer: Any) -> Any:
        if type(layer) in classes:
            config = {k: v for k, v in layer.get_config().items() if not k.endswith(dropped)}
            return classes[type(layer)].from_config(config)
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def to_tflite(model: Any, images: np.ndarray, int8: bool) -> bytes:
    """By TensorFlow's converter; int8 is calibrated with the images, input and output stay float32."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def to_onnx(model: Any) -> bytes:
    """By tf2onnx."""
    import tf2onnx

    signature = [tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="input")]
    converted, _ = tf2onnx.convert.from_function(
        tf.function(lambda x: model(x, training=False)), input_signature=signature, opset=17
    )
    return converted.SerializeToString()


def quantize_onnx(path: Path, output: Path, images: np.ndarray) -> None:
    """Static quantization of onnxruntime, weights per channel, calibrated with the images, after its own preparation,
    which folds batch norms into convolutions.

    Activations are unsigned: of signed ones, onnxruntime 1.31 makes some unsigned on x86 and then computes convolutions
    whose input and output differ in that, those before a residual addition, in float32.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"input": image[None]}

    prepared = output.with_name("prepared.onnx")
    types = {"activation_type": quantization.QuantType.QUInt8, "weight_type": quantization.QuantType.QInt8}
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)  # all shapes are known
    quantization.quantize_static(str(prepared), str(output), Reader(), per_channel=True, **types)
    prepared.unlink()


def build(name: str, folder: Path, only: str = "") -> dict[str, str | None]:
    """Write every file that can be made and whose name ends so; of each name, None or why it could not be."""
    from larq_clip.converter import convert_keras_model
    from larq_clip.models import clip_model, quantize_model

    model, images = keras_model(name)
    ordinary = full_precision(model)
    expected = {"binary": model(images[:1]).numpy(), "ordinary": ordinary(images[:1]).numpy()}

    def integer() -> bytes:
        quantized = quantize_model(clip_model(model, step="auto", calibration_data=images), images)
        expected["integer"] = quantized(images[:1]).numpy()
        return convert_keras_model(quantized)

    def binary() -> bytes:
        import larq_compute_engine

        return larq_compute_engine.convert_keras_model(model)

    def int8_onnx() -> bytes:
        output = folder / "int8.onnx"
        quantize_onnx(folder / "float32.onnx", output, images)
        return output.read_bytes()

    makers: dict[str, Callable[[], bytes]] = {
        "integer.lcb": integer,
        "plain.lcb": lambda: convert_keras_model(model),
        "binary.tflite": binary,
        "float32.tflite": lambda: to_tflite(ordinary, images, int8=False),
        "int8.tflite": lambda: to_tflite(ordinary, images, int8=True),
        "float32.onnx": lambda: to_onnx(ordinary),
        "int8.onnx": int8_onnx,
    }
    record = folder / "models.json"
    kept: dict[str, str | None] = json.loads(record.read_text()) if only and record.exists() else {}
    made = dict(kept)
    folder.mkdir(parents=True, exist_ok=True)
    for file, make in makers.items():
        if kept and not file.endswith(only):
            continue
        print(f"{name}: {file}", file=sys.stderr, flush=True)
        try:
            with quantized_scope():
                (folder / file).write_bytes(make())
            made[file] = None
        except Exception as error:  # of foreign converters, anything; it is recorded and printed
            made[file] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            print(f"{name}: no {file}: {made[file]}", file=sys.stderr)
    np.save(folder / "image.npy", images[:1])
    np.savez(folder / "expected.npz", **expected)
    record.write_text(json.dumps(made, indent=2) + "\n")
    return made


def main() -> None:
    """Build the files of one network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peers", type=Path, required=True, help="virtual environment of the peers")
    parser.add_argument("--only", default="", metavar="SUFFIX", help="keep what was made, save files that end so")
    arguments = parser.parse_args()
    # Behind everything else: TensorFlow and NumPy are those of this environment.
    sys.path += [str(path) for path in sorted(arguments.peers.glob("lib/python*/site-packages"))]
    build(arguments.name, arguments.folder, arguments.only)


if __name__ == "__main__":
    main()
