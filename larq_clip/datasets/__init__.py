"""Image sets for the demo: an embedded subset of Fashion-MNIST, and folders of IDX files. NumPy only."""

from larq_clip.datasets.embedded import FASHION_MNIST_CLASSES, fashion_mnist_subset
from larq_clip.datasets.idx import load_idx_folder

__all__ = ["FASHION_MNIST_CLASSES", "fashion_mnist_subset", "load_idx_folder"]
