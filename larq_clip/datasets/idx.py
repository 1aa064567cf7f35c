"""The IDX format of the MNIST family: reading, writing, and the four files that make one image set.

An IDX file of bytes is: two zero bytes, the type code 8 (uint8), the rank, each size as a big-endian 32-bit integer,
then the values in row-major order.
"""

from __future__ import annotations

import gzip
import lzma
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UINT8_CODE = 8
PREFIXES = ("", "fashion-")
PARTS = ("train", "t10k")
KINDS = (("images", 3), ("labels", 1))
DECOMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.decompress, ".xz": lzma.decompress}

UInt8Array = NDArray[np.uint8]
ImageSet = tuple[tuple[UInt8Array, UInt8Array], tuple[UInt8Array, UInt8Array]]


def parse_idx(raw: bytes, rank: int, source: str) -> UInt8Array:
    """Decode the bytes of an IDX file of `rank` axes; `source` names it in errors.

    Raises:
        ValueError: where the header is not that of uint8 data of this rank, or the length does not match it.
    """
    header = 4 + 4 * rank
    if len(raw) < header or raw[:2] != b"\0\0":
        raise ValueError(f"{source} is not an IDX file: it starts with {raw[:4].hex(' ') or 'nothing'}")
    if raw[2] != UINT8_CODE or raw[3] != rank:
        raise ValueError(
            f"{source} holds data of type {raw[2]} with {raw[3]} axes; accepted is type {UINT8_CODE} (uint8) "
            f"with {rank} axes"
        )
    shape = struct.unpack(f">{rank}I", raw[4:header])
    if len(raw) != header + math.prod(shape):
        raise ValueError(
            f"{source} has {len(raw) - header} bytes of data; its header says {math.prod(shape)} (shape {shape}): "
            "download it again"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape).copy()


def format_idx(values: UInt8Array) -> bytes:
    """Inverse of `parse_idx`.

    Raises:
        ValueError: for values that are not uint8.
    """
    if values.dtype != np.uint8:
        raise ValueError(f"values have dtype {values.dtype}; accepted is uint8")
    header = bytes([0, 0, UINT8_CODE, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + np.ascontiguousarray(values).tobytes()


def _find(folder: Path, part: str, kind: str, rank: int) -> Path:
    """The file of one part ("train", "t10k") and kind ("images", "labels"): plain, .gz or .xz."""
    names = [f"{prefix}{part}-{kind}{dot}idx{rank}-ubyte" for prefix in PREFIXES for dot in "-."]
    for name in names:
        for suffix in DECOMPRESSORS:
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    raise FileNotFoundError(
        f"{folder} has no {names[0]}, nor one compressed as .gz or .xz; the standard Fashion-MNIST files are "
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
    )


def _read(path: Path, rank: int) -> UInt8Array:
    decompress = DECOMPRESSORS.get(path.suffix, bytes)
    try:
        raw = decompress(path.read_bytes())
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be decompressed ({error}): download it again") from error
    return parse_idx(raw, rank, str(path))


def load_idx_folder(folder: str | os.PathLike) -> ImageSet:
    """Read the four IDX files of an image set: Fashion-MNIST, or another of its kind.

    Args:
        folder: holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
            t10k-labels-idx1-ubyte, each plain, .gz or .xz, with or without the prefix "fashion-".

    Returns:
        ((x_train, y_train), (x_test, y_test)), uint8: images ``(n, height, width)`` and labels ``(n,)``.

    Raises:
        FileNotFoundError: where the folder or one of the files is missing.
        ValueError: where a file is damaged, or the numbers or sizes of images and labels differ.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    paths = {(part, kind): _find(folder, part, kind, rank) for part in PARTS for kind, rank in KINDS}
    loaded = []
    for part in PARTS:
        images, labels = (_read(paths[part, kind], rank) for kind, rank in KINDS)
        if len(images) != len(labels) or not len(images):
            raise ValueError(
                f"{paths[part, 'images']} has {len(images)} images and {paths[part, 'labels']} has {len(labels)} "
                "labels; there must be as many labels as images, at least one"
            )
        loaded.append((images, labels))
    train, test = loaded
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"in {folder} the training images have {train[0].shape[1:]} pixels, the test images {test[0].shape[1:]}; "
            "they must agree"
        )
    return train, test
