"""Write the embedded subset again from the whole of Fashion-MNIST.

    python -m larq_clip.datasets.encode FOLDER [OUTPUT]

FOLDER holds the four IDX files; OUTPUT is where the package keeps the subset. With the same version of liblzma the
files come out the same to the byte; the images always do.
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

from larq_clip.datasets.embedded import CHECKSUM, FOLDER, TEST_IMAGES, TRAIN_IMAGES, checksum, select
from larq_clip.datasets.idx import format_idx, load_idx_folder
from larq_clip.files import atomic_write

# Pixels are bytes without any larger alignment: literal contexts from the previous byte only (lc), no position bits.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]


def encode(source: Path, output: Path) -> dict[str, int]:
    """Write the chosen images of each part of `source` to `output` as IDX files under xz.

    Returns:
        File name to bytes.

    Raises:
        FileNotFoundError, ValueError: as `load_idx_folder`; ValueError also where `source` is not Fashion-MNIST.
    """
    train, test = load_idx_folder(source)
    subset = (select(*train, TRAIN_IMAGES), select(*test, TEST_IMAGES))
    if checksum(subset) != CHECKSUM:
        raise ValueError(f"{source} does not hold the images of Fashion-MNIST (SHA-256 {checksum(subset)})")
    sizes = {}
    for part, (images, labels) in zip(("train", "t10k"), subset, strict=True):
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{part}-{kind}-ubyte.xz"
            data = lzma.compress(format_idx(values), filters=FILTERS)
            atomic_write(output / name, data)
            sizes[name] = len(data)
    return sizes


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    if len(arguments) not in (1, 2):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        sizes = encode(Path(arguments[0]), Path(arguments[1]) if len(arguments) == 2 else FOLDER)
    except (OSError, ValueError) as error:
        print(f"encode: error: {error}", file=sys.stderr)
        return 2
    for name, size in sizes.items():
        print(f"{size:9,} bytes  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
