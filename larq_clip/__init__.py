"""Train binary neural networks whose data stays in 8 bits, and run them, bit for bit, on a small C runtime."""

__version__ = "0.1.0"
