"""10,000 training and 2,000 test images of Fashion-MNIST, embedded in the package (MIT licence).

Chosen without regard to the order in which a copy of the set lists them: of each part, the images with the smallest
SHA-256 digests (of the pixels followed by the label), in the order of these digests, so every prefix mixes the classes.
The folder `fashion_mnist/` holds them as ordinary IDX files under xz, written by `larq_clip.datasets.encode`. xz over
the raw pixels is smaller here than xz over prediction residuals (4.5 against 4.7 MB): the images are noisy inside and
constant outside, and the prediction spreads the noise.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from larq_clip.datasets.idx import ImageSet, UInt8Array, load_idx_folder

FOLDER = Path(__file__).parent / "fashion_mnist"
TRAIN_IMAGES = 10_000
TEST_IMAGES = 2_000
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# SHA-256 of x_train, y_train, x_test, y_test, one after the other, as bytes.
CHECKSUM = "cf5ad587ed28742c19a4cf21398aee6146437a44e71ad4c6b1ceb9ab01b18cb8"


def checksum(images: ImageSet) -> str:
    """SHA-256, hexadecimal, of the four arrays' bytes in the order train images, labels, test images, labels."""
    digest = hashlib.sha256()
    for part in images:
        for array in part:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def select(images: UInt8Array, labels: UInt8Array, count: int) -> tuple[UInt8Array, UInt8Array]:
    """The `count` images, and their labels, with the smallest SHA-256 of (pixels, label), in that order."""
    digests = [
        hashlib.sha256(image.tobytes() + bytes([label])).digest() for image, label in zip(images, labels, strict=True)
    ]
    chosen = sorted(range(len(digests)), key=digests.__getitem__)[:count]
    return images[chosen], labels[chosen]


def fashion_mnist_subset() -> ImageSet:
    """Load the embedded images.

    The choice (see the module) is random with respect to the classes, which are close to balanced: 950 to 1,049
    training and 178 to 216 test images each.

    Returns:
        ((x_train, y_train), (x_test, y_test)), uint8: images ``(10000, 28, 28)`` and ``(2000, 28, 28)``, labels
        0 to 9 (`FASHION_MNIST_CLASSES`).

    Raises:
        ValueError: where the files in the package are damaged.

    Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms", 2017.
    """
    images = load_idx_folder(FOLDER)
    if checksum(images) != CHECKSUM:
        raise ValueError(f"the images in {FOLDER} do not have the checksum {CHECKSUM}: reinstall larq-clip")
    return images
