"""Seeds for the fuzzers: models of every op and epilogue, made as the converter's tests make theirs, and .npy headers.

    python runtime/fuzz/make_corpus.py FOLDER

writes FOLDER/models/*.lcb and FOLDER/npy/*.npy, the same ones each time.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import sys
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from numpy.lib import format as npy

ROOT = Path(__file__).parent.parent.parent
TESTS = ROOT / "tests"
RANDOM_MODELS = 40
MOST_BYTES = 1 << 15  # a small file is changed and run thousands of times a second


def load_test(path: Path):
    """A test module by its path; it is part of no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def models() -> dict[str, bytes]:
    """Model files by name: every op in one graph, then random graphs."""
    from random_networks import moved_network, networks, plain_networks

    from larq_clip.converter import pipeline, writer

    file_tests = load_test(TESTS / "converter" / "test_file.py")
    found = {f"every_op_{seed}": writer.write(file_tests.every_op(seed)) for seed in range(3)}
    found |= {f"moved_{seed}": writer.write(pipeline.lower(moved_network(seed))) for seed in range(2)}
    quiet = settings(
        max_examples=RANDOM_MODELS, database=None, derandomize=True, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    def collect(name: str, graph) -> None:
        data = writer.write(graph)
        if len(data) <= MOST_BYTES:
            found[f"{name}_{len(found)}"] = data

    quiet(given(file_tests.graphs())(lambda graph: collect("float", graph)))()
    quiet(given(networks())(lambda graph: collect("integer", pipeline.lower(graph))))()
    quiet(given(plain_networks())(lambda graph: collect("plain", pipeline.lower(graph))))()
    return found


def headers() -> dict[str, bytes]:
    """.npy files by name, of every version, order and kind of dtype."""
    found = {}
    dtypes = ("<f4", "|i1", ">f4", "<f8", "|O", [("a", "<f4")])
    for version in ((1, 0), (2, 0), (3, 0)):
        for shape in ((), (3,), (2, 5, 5, 3), (1, 2, 3, 4, 5, 6, 7, 8), (0,), (2**40, 7)):
            for dtype in dtypes:
                for fortran in (False, True):
                    file = io.BytesIO()
                    description = npy.dtype_to_descr(np.dtype(dtype))
                    header = {"descr": description, "fortran_order": fortran, "shape": shape}
                    npy._write_array_header(file, header, version)
                    found[f"header_{len(found)}"] = file.getvalue()
    return found


def main() -> None:
    """Write all seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    sys.path.insert(0, str(TESTS))
    for kind, suffix, files in (("models", ".lcb", models()), ("npy", ".npy", headers())):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / kind / (name + suffix)).write_bytes(data)
        print(f"{folder / kind}: {len(files)} files, {sum(map(len, files.values()))} bytes")


if __name__ == "__main__":
    main()
