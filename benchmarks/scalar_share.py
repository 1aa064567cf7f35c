"""Counts in which functions a network's instructions run, and whether they are vectors: what is left in scalar code.

Runs `larq-clip-run` under QEMU with a counting plugin, an image once and twice: the difference is one inference,
without what is done once. A function of which few instructions are arithmetic of vectors is scalar. Instructions are
not time, but counts are the same everywhere; memory is not in them.

    python benchmarks/scalar_share.py build/runtime-aarch64/larq-clip-run build/end_to_end/*/integer.lcb
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

ANCHOR = "lqc_session_run"  # a function that runs, whose name no other has
SCALAR_BELOW = 0.1  # share of vector arithmetic below which a function counts as scalar


def build_plugin(folder: Path) -> Path:
    """Compiles function_shares.c for this machine."""
    plugin = folder / "function_shares.so"
    source = Path(__file__).parent / "function_shares.c"
    subprocess.run(["cc", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", source, "-o", plugin], check=True)
    return plugin


def functions_of(program: Path) -> list[tuple[int, int, str]]:
    """First address, address behind, and "file: name" of every function of a program, by address."""
    listing = subprocess.run(["readelf", "-sW", program], capture_output=True, text=True, check=True).stdout
    found, file = [], ""
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[3] == "FILE":
            file = fields[7]
        elif len(fields) >= 8 and fields[3] == "FUNC" and int(fields[2], 0) > 0:
            name = fields[7] if fields[4] == "GLOBAL" else f"{file}: {fields[7]}"
            start = int(fields[1], 16) & ~1  # bit 0 of 32-bit ARM: Thumb
            found.append((start, start + int(fields[2], 0), name))
    return sorted(found)


def count(command: list[str], plugin: Path, program: Path, arguments: list[str]) -> Counter[tuple[str, str]]:
    """Instructions by function and kind ("all" or "vector") of one run of the program."""
    with tempfile.NamedTemporaryFile("r") as log:
        line = [*command, "-D", log.name, "-d", "plugin", "-plugin", str(plugin), str(program), *arguments]
        subprocess.run(line, check=True, capture_output=True)
        blocks = [
            (int(address, 16), name, int(everything), int(vector))
            for address, name, everything, vector in re.findall(r"^block (\w+) (\S+) (\d+) (\d+)$", log.read(), re.M)
        ]
    functions = functions_of(program)
    entry = min(address for address, name, _, _ in blocks if name == ANCHOR)
    bias = entry - next(start for start, _, name in functions if name == ANCHOR)
    counts: Counter[tuple[str, str]] = Counter()
    for address, name, everything, vector in blocks:
        inside = (label for start, end, label in functions if start <= address - bias < end)
        label = next(inside, name)
        counts[label, "all"] += everything
        counts[label, "vector"] += vector
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="larq-clip-run, with its symbols and without sanitizers")
    parser.add_argument("models", type=Path, nargs="+", help=".lcb files, each with an image.npy beside it")
    parser.add_argument("--emulator", default="qemu-aarch64", help="and its options, such as 'qemu-arm -L ROOT'")
    parser.add_argument("--isa", default="auto", help="as larq-clip-run takes it")
    parser.add_argument("--least", type=float, default=2.0, help="percent below which a function is not listed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plugin = build_plugin(Path(folder))
        for model in options.models:
            arguments = [str(model), "--input", str(model.parent / "image.npy"), "--isa", options.isa, "--repeat"]
            emulator = shlex.split(options.emulator)
            once, twice = (count(emulator, plugin, options.program, [*arguments, times]) for times in ("1", "2"))
            twice.subtract(once)
            total = sum(number for (_, kind), number in twice.items() if kind == "all")
            print(f"{model.parent.name}, {model.stem}: {total / 1e6:.1f} million instructions")
            for (name, kind), number in twice.most_common():
                if kind == "all" and 100 * number >= options.least * total:
                    share = twice[name, "vector"] / number
                    verdict = "scalar" if share < SCALAR_BELOW else ""
                    print(f"  {100 * number / total:5.1f} %  {100 * share:3.0f} % vector  {verdict:6}  {name}")


if __name__ == "__main__":
    main()
