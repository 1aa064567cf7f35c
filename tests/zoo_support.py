"""The models of larq-zoo, small, and with batch norms as if trained."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CLASSES = 5
EVERYTHING = os.environ.get("LARQ_CLIP_ALL_ZOO") == "1"


class Case(NamedTuple):
    """Pixels a side, how the model is saved, how many binary layers it has, what stays float, scaled kernels, and bits
    of their inputs."""

    size: int
    suffixes: str
    binary: int
    floats: frozenset = frozenset()
    scaled: bool = False
    planes: int = 1

    @property
    def levels(self) -> int | None:
        """n of inputs m / n; None of signs."""
        return None if self.planes == 1 else 2**self.planes - 1


# Keras 2 cannot load an Activation with a registered function, as DoReFaNet has, from .h5, whether quantized or not.
# XNORNet ends in a valid 6x6 convolution, so images of fewer than 217 pixels leave nothing for it.
CASES = {
    "BinaryAlexNet": Case(64, "h5 keras", 7, frozenset({"QuantConv2D"})),
    "BinaryDenseNet28": Case(50, "h5", 23),
    "BinaryDenseNet37": Case(50, "h5", 32),
    "BinaryDenseNet37Dilated": Case(50, "h5", 32),
    "BinaryDenseNet45": Case(50, "h5", 40),
    "BinaryResNetE18": Case(64, "h5", 16),
    "BiRealNet": Case(32, "h5", 16, scaled=True),
    "DoReFaNet": Case(96, "keras", 6, scaled=True, planes=2),
    "MeliusNet22": Case(32, "h5", 34),
    "QuickNet": Case(32, "h5", 16),
    "QuickNetLarge": Case(32, "h5", 32),
    "QuickNetSmall": Case(32, "h5", 16),
    "RealToBinaryNet": Case(32, "h5", 16, frozenset({"Multiply", "PReLU"})),
    "XNORNet": Case(217, "h5", 6, scaled=True),
}


def factory(name: str) -> Any:
    import larq_zoo

    return getattr(larq_zoo.sota if name.startswith("QuickNet") else larq_zoo.literature, name)


def images(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, size, size, 3)).astype(np.float32)


def trained(name: str, seed: int = 3):
    """A model of the zoo with random weights, as if trained, and the images that its batch norms fit."""
    from larq_clip._keras import keras

    size = CASES[name].size
    x = images(size)
    keras.utils.set_random_seed(seed)
    model = factory(name)(input_shape=(size, size, 3), weights=None, num_classes=CLASSES)
    as_if_trained(model, x)
    return model, x


def as_if_trained(model: Any, x: np.ndarray) -> None:
    """Batch norms that fit their inputs, and affine variables with both signs."""
    from larq_clip._keras import keras

    rng = np.random.default_rng(11)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(x, training=True)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        for variable in (norm.gamma, norm.beta):
            if variable is not None:
                spread = rng.uniform(0.5, 1.5, variable.shape)
                variable.assign(rng.choice([-1, 1], variable.shape) * spread * (1 if variable is norm.gamma else 0.3))
    for layer in model.layers:
        if isinstance(layer, keras.layers.PReLU):
            layer.alpha.assign(rng.uniform(-0.2, 0.5, layer.alpha.shape))


def clipped(name: str, step: Any = "auto"):
    """A model of the zoo, clipped, and the images that calibrated it."""
    from larq_clip.models import clip_model

    model, x = trained(name)
    return clip_model(model, step=step, **({"calibration_data": x} if step == "auto" else {})), x


def quantized(name: str, step: Any = "auto"):
    """A model of the zoo, clipped and quantized, and the images that calibrated it."""
    from larq_clip.models import quantize_model

    model, x = clipped(name, step)
    return quantize_model(model, x), x


class Converted(NamedTuple):
    """A model, its name and fidelity, the images that fit it, its file, and the seconds that converting took."""

    name: str
    fidelity: str
    model: Any
    x: np.ndarray
    data: bytes
    seconds: float


BUILD = {"plain": trained, "clipped": clipped, "integer": quantized}


def converted(name: str, fidelity: str) -> Converted:
    """A model of the zoo at a fidelity, and its file."""
    from larq_clip._keras import tf
    from larq_clip.converter import convert_keras_model

    # These models need no autograph, and converting their many layers takes most of the time.
    model, x = tf.autograph.experimental.do_not_convert(BUILD[fidelity])(name)
    start = time.perf_counter()
    data = convert_keras_model(model)
    return Converted(name, fidelity, model, x, data, time.perf_counter() - start)


def record(found: Converted, *, exact: bool) -> None:
    """Note a model that was converted and compared, in the JSON file that LARQ_CLIP_ZOO_RESULTS names, if it does."""
    from larq_clip.converter import report

    if "LARQ_CLIP_ZOO_RESULTS" not in os.environ:
        return
    path = Path(os.environ["LARQ_CLIP_ZOO_RESULTS"])
    rows = json.loads(path.read_text()) if path.exists() else []
    keys = ("file_bytes", "ideal_weight_bytes", "arena_bytes", "arena_lower_bound_bytes")
    name, fidelity = found.name, found.fidelity
    described = report.describe(found.data)
    row = {"model": name, "fidelity": fidelity, "converts": True, "exact": exact}
    row |= {key: described[key] for key in keys} | {"seconds": round(found.seconds, 1)}
    others = [r for r in rows if (r["model"], r["fidelity"]) != (name, fidelity)]
    rows = sorted([*others, row], key=lambda r: (r["model"], r["fidelity"]))
    path.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
