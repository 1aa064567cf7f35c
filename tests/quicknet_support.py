"""A small QuickNet with random weights, in the format of the real archives, and the modules that measure it."""

from __future__ import annotations

import importlib
import sys
import zipfile
from pathlib import Path

import numpy as np
from support import ROOT

CHANNELS = 32
CLASSES = 7
SIZE = (48, 40)  # 12 x 10 after the stem, 6 x 5 after the transition: not square, so that swapped axes show
PHOTOS = 6
# (inputs, outputs): one residual block and a transition, then two residual blocks.
BLOCKS = ((CHANNELS, CHANNELS), (CHANNELS, CHANNELS), (2 * CHANNELS, 2 * CHANNELS), (2 * CHANNELS, 2 * CHANNELS))


def load(name):
    """A module of benchmarks/accuracy, which is no package."""
    sys.path.insert(0, str(ROOT / "benchmarks" / "accuracy"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "benchmarks" / "accuracy"))


def random_weights(seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    def affine(name, channels, scale):
        return {
            f"{name}_mul": rng.uniform(-0.3, 1, channels).astype(np.float32) * np.float32(scale),
            f"{name}_add": normal(channels, scale=0.5),
        }

    weights = {
        "stem_conv_w": normal(8, 3, 3, 3, scale=0.3),
        "stem_conv_b": normal(8),
        "stem_dw_w": normal(1, 3, 3, CHANNELS, scale=0.3),
        "stem_dw_b": normal(CHANNELS),
        **affine("stem_bn", CHANNELS, 1),
        **affine("t0", CHANNELS, 1),
        "fc_w": normal(CLASSES, 2 * CHANNELS, scale=0.3),
        "fc_b": normal(CLASSES),
    }
    for block, (inputs, outputs) in enumerate(BLOCKS):
        weights[f"b{block}_bits"] = rng.integers(0, 2**32, (outputs, 3, 3, inputs // 32), np.uint32)
        weights[f"b{block}_bits"][:4] = 0  # filters of +1 alone, on signs most of which are +1: these saturate
        weights |= affine(f"b{block}", outputs, 1 / 32)
    weights["stem_bn_add"] += 1
    return weights


def random_photos(seed=1):
    """Pixels of the photos."""
    return np.random.default_rng(seed).integers(0, 256, (PHOTOS, *SIZE, 3), np.uint8)


def write_archives(folder: Path, weights, photos) -> list[str]:
    """Write weights.npz and photos.zip; the names of the photos."""
    from larq_clip._keras import tf

    names = [f"{i % CLASSES:04d}_photo{i}.png" for i in range(PHOTOS)]
    np.savez(folder / "weights.npz", **weights)
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for name, photo in reversed(list(zip(names, photos))):
            archive.writestr(name, tf.io.encode_png(photo).numpy())
    return names
