"""QuickNet from an archive of its weights: a pretrained residual binary network as an ordinary Keras and Larq model.

The archive (.npz) holds, for K binary convolutions numbered in the order of the graph:

| array | shape | what |
|---|---|---|
| `stem_conv_w`, `stem_conv_b` | (c, 3, 3, 3), (c,) | convolution, stride 2 |
| `stem_dw_w`, `stem_dw_b` | (1, 3, 3, C), (C,) | depthwise convolution, stride 2, C / c outputs per input, then relu |
| `stem_bn_mul`, `stem_bn_add` | (C,) | affine |
| `bK_bits` | uint32 (out, 3, 3, in / 32) | signs, bit 1 = -1, least significant bit first |
| `bK_mul`, `bK_add` | (out,) | affine after the relu of a binary convolution |
| `tT_mul`, `tT_add` | (C,) | affine after the max pool of a transition |
| `fc_w`, `fc_b` | (classes, C), (classes,) | classifier |

All sizes are read from the arrays. A stage is a run of blocks with the same number of inputs; the last block of every
stage but the last belongs to the transition, which doubles the channels.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from larq_clip._keras import keras, lq, tf

MEAN = np.array([0.485, 0.456, 0.406])
DEVIATION = np.array([0.229, 0.224, 0.225])
# With a mean of 0 and variance + epsilon = 1 exactly, a batch norm is gamma x + beta to the last bit.
EPSILON = 2.0**-10

Weights = Mapping[str, NDArray]


class ArchiveError(ValueError):
    """An archive does not hold what it should; the message says what is missing or wrong."""


# ---- Archives -------------------------------------------------------------------------------------------------------


def load_arrays(path: Path, required: tuple[str, ...]) -> dict[str, NDArray]:
    """The arrays of an .npz file, of which some must be there.

    Raises:
        FileNotFoundError, ArchiveError: where the file, or an array in it, is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise ArchiveError(f"{path} is no .npz archive of arrays: {error}") from error
    missing = [name for name in required if name not in arrays]
    if missing:
        raise ArchiveError(f"{path} lacks the arrays {missing}; it has {sorted(arrays)}")
    return arrays


def load_weights(path: Path) -> Weights:
    """The weights of a QuickNet; see the module for the arrays.

    Raises:
        FileNotFoundError, ArchiveError: where the file, or an array in it, is missing.
    """
    affine = ("mul", "add")
    stem = [f"stem_{n}" for n in ("conv_w", "conv_b", "dw_w", "dw_b", "bn_mul", "bn_add")]
    arrays = load_arrays(path, (*stem, "b0_bits", "fc_w", "fc_b"))
    wanted = [f"b{k}_{part}" for k in range(count_blocks(arrays)) for part in affine]
    wanted += [f"t{t}_{part}" for t in range(len(stages(arrays)) - 1) for part in affine]
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ArchiveError(f"{path} lacks the arrays {missing}; it has {sorted(arrays)}")
    return arrays


def load_photos(path: Path) -> tuple[list[str], NDArray[np.uint8], NDArray[np.int64]]:
    """Names, pixels ``(photos, height, width, 3)`` and classes of the PNG files in a zip archive, sorted by name.

    The class is the number before the first "_" of the name: ``0420_name.png`` is of class 420.

    Raises:
        FileNotFoundError, ArchiveError: where the file is missing, holds no photo, or photos of several sizes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".png"))
            photos = [tf.io.decode_png(archive.read(name), channels=3).numpy() for name in names]
    except zipfile.BadZipFile as error:
        raise ArchiveError(f"{path} is no zip archive: {error}") from error
    if not photos or len({photo.shape for photo in photos}) != 1:
        sizes = sorted({photo.shape for photo in photos})
        raise ArchiveError(f"{path} holds {len(photos)} PNG files of the sizes {sizes}; needed are some, of one size")
    unnamed = [name for name in names if not Path(name).name.split("_")[0].isdigit()]
    if unnamed:
        raise ArchiveError(f"{path} holds {unnamed[0]!r}; accepted are names that start with the class and '_'")
    return names, np.stack(photos), np.array([int(Path(name).name.split("_")[0]) for name in names], np.int64)


def normalize(photos: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels 0 to 255 as the network was trained on them: (pixel / 255 - mean) / deviation, per colour."""
    return ((photos - 255 * MEAN) / (255 * DEVIATION)).astype(np.float32)


# ---- Structure ------------------------------------------------------------------------------------------------------


def count_blocks(weights: Weights) -> int:
    """Number of binary convolutions: of the arrays b0_bits, b1_bits, ... without a gap."""
    count = 0
    while f"b{count}_bits" in weights:
        count += 1
    return count


def stages(weights: Weights) -> list[list[int]]:
    """The numbers of the binary convolutions, stage by stage; in all stages but the last, the last is the transition's.

    Raises:
        ArchiveError: where a transition does not double the channels as the next stage needs.
    """
    found = [list(run) for _, run in groupby(range(count_blocks(weights)), lambda k: weights[f"b{k}_bits"].shape[3])]
    for stage, following in zip(found, found[1:]):
        outputs, inputs = weights[f"b{stage[-1]}_bits"].shape[0], 32 * weights[f"b{following[0]}_bits"].shape[3]
        if 2 * outputs != inputs:
            raise ArchiveError(
                f"b{stage[-1]}_bits has {outputs} outputs and b{following[0]}_bits {inputs} inputs; accepted is twice "
                "as many, since a transition concatenates two tensors of as many channels"
            )
    return found


def binary_name(block: int) -> str:
    """Name of the Keras layer of a binary convolution."""
    return f"b{block}_conv"


def kernel_signs(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Packed signs ``(out, h, w, in / 32)`` as a Keras kernel ``(h, w, in, out)`` of -1 and +1."""
    unpacked = np.unpackbits(np.ascontiguousarray(bits, "<u4").view(np.uint8), axis=-1, bitorder="little")
    return (1 - 2 * unpacked.astype(np.float32)).transpose(1, 2, 3, 0)


# ---- The Keras model ------------------------------------------------------------------------------------------------


def build(weights: Weights, size: tuple[int, int] = (224, 224)) -> keras.Model:
    """The network for photos of ``(height, width)``, softmax included.

    A residual block is x + affine(relu(binary_conv(sign(x)))), with +1 around the image; a transition is s =
    affine(max_pool(x)), then [s, s + affine(relu(binary_conv(sign(x))))] with stride 2. Every affine is a batch norm.
    """

    def affine(x, name):
        norm = keras.layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")
        y = norm(x)
        mul, add = weights[f"{name}_mul"], weights[f"{name}_add"]
        norm.set_weights([mul, add, np.zeros_like(mul), np.full_like(mul, 1 - EPSILON)])
        return y

    def with_weights(layer, x, *values):
        y = layer(x)
        layer.set_weights(values)
        return y

    def branch(x, block, strides):
        kernel = kernel_signs(weights[f"b{block}_bits"])
        convolution = lq.layers.QuantConv2D(
            kernel.shape[3],
            kernel.shape[:2],
            strides=strides,
            padding="same",
            pad_values=1.0,
            use_bias=False,
            input_quantizer="ste_sign",
            kernel_quantizer="ste_sign",
            kernel_constraint="weight_clip",
            name=binary_name(block),
        )
        y = keras.layers.ReLU(name=f"b{block}_relu")(with_weights(convolution, x, kernel))
        return affine(y, f"b{block}")

    plan = stages(weights)
    photo = keras.Input((*size, 3), name="photo")
    w = weights["stem_conv_w"]
    convolution = keras.layers.Conv2D(w.shape[0], w.shape[1:3], strides=2, padding="same", name="stem_conv")
    x = with_weights(convolution, photo, w.transpose(1, 2, 3, 0), weights["stem_conv_b"])
    w = weights["stem_dw_w"][0]
    channels = x.shape[-1]
    depthwise = keras.layers.DepthwiseConv2D(
        w.shape[:2], strides=2, padding="same", depth_multiplier=w.shape[2] // channels, name="stem_dw"
    )
    x = with_weights(depthwise, x, w.reshape(*w.shape[:2], channels, -1), weights["stem_dw_b"])
    x = affine(keras.layers.ReLU(name="stem_relu")(x), "stem_bn")
    for number, stage in enumerate(plan):
        last = number == len(plan) - 1
        for block in stage if last else stage[:-1]:
            x = keras.layers.Add(name=f"b{block}_add")([branch(x, block, 1), x])
        if not last:
            shortcut = keras.layers.MaxPool2D(2, strides=2, padding="same", name=f"t{number}_pool")(x)
            shortcut = affine(shortcut, f"t{number}")
            added = keras.layers.Add(name=f"b{stage[-1]}_add")([branch(x, stage[-1], 2), shortcut])
            x = keras.layers.Concatenate(name=f"t{number}_concat")([shortcut, added])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.ReLU(name="relu")(x))
    classifier = keras.layers.Dense(weights["fc_b"].shape[0], name="classifier")
    x = with_weights(classifier, x, weights["fc_w"].T, weights["fc_b"])
    return keras.Model(photo, keras.layers.Softmax(name="softmax")(x), name="quicknet")
