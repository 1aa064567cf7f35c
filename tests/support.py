"""Models and helpers that several test rooms share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
IMAGE = (12, 12, 3)


def dyadic_images(count: int, shape: tuple[int, ...] = IMAGE, seed: int = 0) -> np.ndarray:
    """Pixels on a grid of 1/128 in [-1, 1), so that float32 sums of products with 8-bit weights are exact."""
    return np.random.default_rng(seed).integers(-128, 128, (count, *shape)).astype(np.float32) / 128


def write_signs(path: Path, shape: tuple[int, ...]) -> None:
    """The file of a model that gives the sign of each element of its input, as float32."""
    from larq_clip.converter import ir, writer

    kinds = {"x": ir.DType.FLOAT32, "bits": ir.DType.BIT, "out": ir.DType.FLOAT32}
    ops = [ir.Bitpack("sign", ("x",), ("bits",)), ir.Unpack("unpack", ("bits",), ("out",))]
    tensors = [ir.Tensor(name, dtype, shape) for name, dtype in kinds.items()]
    path.write_bytes(writer.write(ir.Graph.build("signs", tensors, ops, ["x"], ["out"])))


def randomize(model, seed: int = 0) -> None:
    """Give a Keras model random weights under which its activations are alive: gamma of both signs and, in some
    channels, zero; statistics that lie inside the range of the accumulators."""
    from larq_clip._keras import keras

    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # The incoming range depends on the layer before, so measure it on data.
            inputs = keras.Model(model.inputs, layer.input).predict(
                dyadic_images(16, model.input_shape[1:], seed), verbose=0
            )
            axes = tuple(range(inputs.ndim - 1))
            mean = inputs.mean(axes) + 0.3 * inputs.std(axes) * rng.standard_normal(inputs.shape[-1])
            values = {"moving_mean": mean, "moving_variance": inputs.var(axes) + 1e-3}
            gamma = rng.uniform(0.5, 2, mean.shape) * rng.choice([-1, 1], mean.shape)
            gamma[rng.random(mean.shape) < 0.05] = 0
            values["gamma"] = gamma
            values["beta"] = 0.2 * rng.standard_normal(mean.shape)
            layer.set_weights([values[weight.name.split("/")[-1].split(":")[0]] for weight in layer.weights])
        elif layer.weights:
            layer.set_weights([rng.uniform(-1, 1, weight.shape).astype(np.float32) for weight in layer.weights])


def small_vgg(step: float | None = 1, pool: str = "before", pad_values: float = 0.0, seed: int = 0, scale: bool = True):
    """A VGG-style binary network for 12x12x3 images: exact first layer and classifier, two binary convolutions, one
    binary dense layer.

    Args:
        step: of the clip of every binary layer; None for a plain Larq model.
        pool: max pool "before" or "after" the batch norm.
        pad_values: of the 'same' padded binary convolutions: 0, 1 or -1.
        scale: whether the batch norms have gamma.
    """
    import larq as lq

    from larq_clip import models, quantizers
    from larq_clip._keras import keras

    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    norm = {"scale": scale}

    def block(filters: int, **arguments):
        layers = [
            lq.layers.QuantConv2D(filters, 3, padding="same", pad_values=pad_values, **binary, **arguments),
            keras.layers.MaxPool2D(2),
            keras.layers.BatchNormalization(**norm),
        ]
        return layers if pool == "before" else [layers[0], layers[2], layers[1]]

    exact = {"kernel_quantizer": quantizers.FixedPoint(), "use_bias": False}
    model = keras.Sequential(
        [
            keras.layers.InputLayer(IMAGE),
            lq.layers.QuantConv2D(40, 3, padding="same", **exact),
            keras.layers.BatchNormalization(**norm),
            *block(72),
            *block(64, groups=1),
            keras.layers.Flatten(),
            lq.layers.QuantDense(96, **binary),
            keras.layers.BatchNormalization(**norm),
            lq.layers.QuantDense(10, input_quantizer="ste_sign", **exact),
            keras.layers.Softmax(),
        ]
    )
    randomize(model, seed)
    return model if step is None else models.clip_model(model, step=step)


def program(name: str) -> list[str]:
    """Command line of an installed program: "larq-clip" or "larq-clip-run"."""
    return [str(Path(sys.executable).parent / name)]


def run_program(command: list[str], **options) -> subprocess.CompletedProcess[str]:
    """Run a command, its output captured as text."""
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment, **options)


def qemu(program_path: Path) -> list[str]:
    """Command line that runs an aarch64 program here."""
    return ["qemu-aarch64", str(program_path)]


def neon_outputs(aarch64_cli: Path, data: bytes, images: np.ndarray, folder: Path) -> np.ndarray:
    """The outputs of a model file with one output, computed by the NEON kernels under qemu."""
    (folder / "model.lcb").write_bytes(data)
    np.save(folder / "x.npy", images)
    files = ["model.lcb", "--input", "x.npy", "--output", "y.npy", "--isa", "neon"]
    run = run_program([*qemu(aarch64_cli), *files], cwd=folder)
    assert run.returncode == 0, run.stderr
    return np.load(folder / "y.npy")
