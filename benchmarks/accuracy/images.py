"""CIFAR-10 and SVHN for the accuracy experiments, scaled, and augmented as in the paper.

Pixels become p / 128 - 1, in [-1, 1): the paper's [-1, 1] up to one part in 128, and exact in 8 bits, so that an int8
first layer rounds no image (Vorabbi et al., section 4.2).
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from larq_clip._keras import keras

DATASETS = ("cifar10", "svhn")
PADDING = 4  # pixels on each side, for the random crop of CIFAR-10
ROTATION, ZOOM, SHIFT, SHEAR = 8.0, 0.05, 10 / 32, 0.15  # SVHN: degrees, +-, share of the image, radians


class Images(NamedTuple):
    """uint8 images ``(n, 32, 32, 3)`` and labels ``(n,)``."""

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.uint8]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.uint8]


def load(dataset: str, data_dir: Path | None) -> Images:
    """The data set from a folder, or CIFAR-10 from ``tf.keras.datasets`` where none is given.

    Found in `data_dir` are ``DATASET.npz`` (arrays x_train, y_train, x_test, y_test), the folder
    ``cifar-10-batches-py`` of the Python version of CIFAR-10, and ``train_32x32.mat`` with ``test_32x32.mat`` of SVHN
    (needs SciPy).

    Raises:
        FileNotFoundError: where `data_dir` holds none of them.
        ValueError: for an unknown data set, and for arrays of other shapes.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset is {dataset!r}; accepted are {' and '.join(map(repr, DATASETS))}")
    if data_dir is None:
        if dataset == "svhn":
            raise ValueError("SVHN needs --data-dir with train_32x32.mat and test_32x32.mat, or with svhn.npz")
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
        return _checked(x_train, y_train, x_test, y_test)
    archive, batches = data_dir / f"{dataset}.npz", data_dir / "cifar-10-batches-py"
    if archive.is_file():
        with np.load(archive, allow_pickle=False) as arrays:
            return _checked(*(arrays[name] for name in Images._fields))
    if dataset == "cifar10" and batches.is_dir():
        train = [_python_batch(batches / f"data_batch_{i}") for i in range(1, 6)]
        x_train, y_train = (np.concatenate(parts) for parts in zip(*train))
        return _checked(x_train, y_train, *_python_batch(batches / "test_batch"))
    if dataset == "svhn" and (data_dir / "train_32x32.mat").is_file():
        return _checked(*_matlab(data_dir / "train_32x32.mat"), *_matlab(data_dir / "test_32x32.mat"))
    raise FileNotFoundError(
        f"{data_dir} holds neither {archive.name} nor "
        + ("the folder cifar-10-batches-py" if dataset == "cifar10" else "train_32x32.mat and test_32x32.mat")
    )


def _python_batch(path: Path) -> tuple[NDArray, NDArray]:
    # The files of the data set's own distribution are pickles; read only those you got from its authors.
    content = pickle.loads(path.read_bytes(), encoding="bytes")
    return content[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(content[b"labels"])


def _matlab(path: Path) -> tuple[NDArray, NDArray]:
    from scipy.io import loadmat

    content = loadmat(path)
    return content["X"].transpose(3, 0, 1, 2), content["y"].ravel() % 10  # the digit 0 is labelled 10


def _checked(x_train: NDArray, y_train: NDArray, x_test: NDArray, y_test: NDArray) -> Images:
    for name, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if x.shape[1:] != (32, 32, 3) or x.dtype != np.uint8 or len(x) != y.size or not len(x):
            raise ValueError(
                f"the {name} images are {x.dtype} {x.shape} with {y.size} labels; accepted are uint8 (n, 32, 32, 3) "
                "with n labels"
            )
    return Images(x_train, y_train.ravel().astype(np.uint8), x_test, y_test.ravel().astype(np.uint8))


def scale(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """p / 128 - 1: multiples of 1/128 in [-1, 1)."""
    return images.astype(np.float32) / np.float32(128) - np.float32(1)


class Batches(keras.utils.Sequence):
    """Shuffled, augmented training batches, scaled; those of an epoch depend on seed and epoch only.

    A killed training that goes on at epoch e sees what it would have seen: give that e as `first_epoch`.
    """

    def __init__(self, images: Images, count: int, batch: int, dataset: str, seed: int, first_epoch: int = 0):
        self.x, self.y = images.x_train[:count], images.y_train[:count]
        self.batch, self.dataset, self.seed, self.epoch = batch, dataset, seed, first_epoch
        self._shuffle()

    def _shuffle(self) -> None:
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.x))

    def __len__(self) -> int:
        return len(self.x) // self.batch

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._shuffle()

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        rng = np.random.default_rng((self.seed, self.epoch, index))
        augment = crop_and_flip if self.dataset == "cifar10" else rotate_zoom_shift_shear
        return scale(augment(self.x[chosen], rng)), self.y[chosen]

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        return (self[i] for i in range(len(self)))


def crop_and_flip(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pad 4 pixels with mid-grey (0 once scaled), crop 32x32 at random, mirror every other image (CIFAR-10)."""
    count, size = images.shape[:2]
    border = (0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)
    padded = np.pad(images, border, constant_values=128)
    tops, lefts = rng.integers(0, 2 * PADDING + 1, (2, count))
    rows, columns = tops[:, None] + np.arange(size), lefts[:, None] + np.arange(size)
    columns = np.where(rng.random((count, 1)) < 0.5, columns[:, ::-1], columns)
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def rotate_zoom_shift_shear(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random affine map of each image, nearest pixel, edges repeated (SVHN): rotation +-8 degrees, zoom 0.95 to 1.05,
    shift up to 10 pixels, shear up to 0.15 radians."""
    count, size = images.shape[:2]
    angle, shear = np.radians(rng.uniform(-ROTATION, ROTATION, count)), rng.uniform(0, SHEAR, count)
    zoom = rng.uniform(1 - ZOOM, 1 + ZOOM, (2, count))
    shift = rng.uniform(-SHIFT, SHIFT, (2, count)) * size
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = np.array([[np.ones(count), -np.sin(shear)], [np.zeros(count), np.cos(shear)]])
    matrix = np.einsum("ijn,jkn,kn->nik", rotation, slant, zoom)
    grid = np.stack(np.meshgrid(*[np.arange(size) - (size - 1) / 2] * 2, indexing="ij")).reshape(2, -1)
    places = matrix @ grid + shift.T[:, :, None] + (size - 1) / 2
    rows, columns = np.clip(np.rint(places), 0, size - 1).astype(np.int64).transpose(1, 0, 2)
    return images[np.arange(count)[:, None], rows, columns].reshape(images.shape)
