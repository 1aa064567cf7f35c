"""Binary convolutions one by one: time on this machine, instructions and modelled cycles on aarch64.

    python benchmarks/kernels.py [--only aarch64|host] [--output benchmarks/results/kernels.json]

Runs `larq-clip-bench-layer` as `make test-c test-aarch64` built it: on this machine for every instruction set that it
has, and under qemu-aarch64 with the counting plugin. A unit is 128 binary multiply-accumulates of the layer as if all
taps were inside the image. ``vector_per_unit`` counts arithmetic and moves of vector registers, no loads and stores.
``mca_cycles_per_unit`` are cycles of the inner loop of the layer's kernel, by core, as llvm-mca models it.
``percent_of_limit`` counts the taps inside the image and is relative to LIMITS and the measured clock, see
runtime/src/kernels/README.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import subprocess
import tempfile
from pathlib import Path

from machine import compiler_version, describe

ROOT = Path(__file__).parent.parent
HOST = ROOT / "build" / "runtime-release"
AARCH64 = ROOT / "build" / "runtime-aarch64"
PROGRAM = "larq-clip-bench-layer"

#: height, width, input channels, output channels, kernel, stride; "same" padding with zeros
SHAPES = [
    (56, 56, 64, 64, 3, 1),
    (28, 28, 128, 128, 3, 1),
    (14, 14, 256, 256, 3, 1),
    (7, 7, 512, 512, 3, 1),
    (32, 32, 128, 128, 3, 1),
    (16, 16, 256, 256, 3, 1),
    (8, 8, 512, 512, 3, 1),
    (56, 56, 64, 128, 3, 2),
    (28, 28, 128, 256, 3, 2),
    (14, 14, 256, 256, 1, 1),
    (28, 28, 64, 64, 5, 1),
]
MODES = ["bits:bits", "bits:int8", "bits:float32", "float32:bits", "int8:bits"]
#: units in a cycle that the arithmetic of each instruction set allows: derived in runtime/src/kernels/README.md
LIMITS = {"scalar": 0.5, "avx2": 1.5, "avx512": 8 / 3}
CORES = ["cortex-a55", "cortex-a72", "neoverse-n1"]
#: functions of the NEON kernels, by whether a tap has an even number of 64-bit words
INNER_LOOPS = {True: "signs_of_pairs", False: "signs_of_words"}
TILE_PIXELS = 15  # of the NEON kernels
#: CNTs of their loops, one for each unit: a step of eight filters, as most are for 64 channels too
LOOP_UNITS = 8 * TILE_PIXELS


def units_of(shape: tuple[int, ...]) -> float:
    """128 binary multiply-accumulates of a layer."""
    height, width, inputs, outputs, kernel, stride = shape
    return -(-height // stride) * -(-width // stride) * inputs * outputs * kernel * kernel / 128


def arguments_of(shape: tuple[int, ...], mode: str, iterations: int) -> list[str]:
    """Arguments of larq-clip-bench-layer."""
    height, width, inputs, outputs, kernel, stride = shape
    numbers = (height, width, inputs, outputs, kernel, kernel, stride)
    return [*map(str, numbers), "same", str(iterations), mode]


def row_of(shape: tuple[int, ...], isa: str, mode: str, **measured: object) -> dict[str, object]:
    """An entry of the results; what was not measured is None."""
    height, width, inputs, outputs, kernel, stride = shape
    row: dict[str, object] = {
        "shape": f"{height}x{width}x{inputs}-{outputs} s{stride} k{kernel}",
        "isa": isa,
        "input": mode.split(":")[0],
        "output": mode.split(":")[1],
        "nanoseconds": None,
        "gmacs": None,
        "percent_of_limit": None,
        "instructions_per_unit": None,
        "vector_per_unit": None,
        "mca_cycles_per_unit": None,
    }
    return row | measured


# ---- This machine ----------------------------------------------------------------------------------------------------


CLOCK = """
#include <stdint.h>
#include <stdio.h>
#include <time.h>
int main(void) {
  double fastest = 1e9;
  for (int turn = 0; turn < 20; ++turn) {
    struct timespec before, after;
    uint64_t x = 3;
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (int i = 0; i < 1000000; ++i) {
      __asm__ volatile("imul %0, %0\\n\\timul %0, %0\\n\\timul %0, %0\\n\\timul %0, %0" : "+r"(x));
    }
    clock_gettime(CLOCK_MONOTONIC, &after);
    double seconds = (double)(after.tv_sec - before.tv_sec) + 1e-9 * (double)(after.tv_nsec - before.tv_nsec);
    fastest = seconds < fastest ? seconds : fastest;
  }
  printf("%.0f\\n", 4e6 * 3 / fastest);
}
"""


@functools.cache
def clock_hertz() -> float:
    """Clock of this x86-64 machine under load, from multiplications that wait for each other, three cycles each."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "clock"
        subprocess.run(["cc", "-O2", "-x", "c", "-", "-o", program], input=CLOCK, text=True, check=True)
        return float(subprocess.run([program], capture_output=True, text=True, check=True).stdout)


def inside_share(shape: tuple[int, ...]) -> float:
    """Share of a layer's taps that are inside the image: the others are not computed."""
    share = 1.0
    for size in shape[:2]:
        kernel, stride = shape[4:]
        out = -(-size // stride)
        pad = max((out - 1) * stride + kernel - size, 0) // 2
        taps = [0 <= place * stride + tap - pad < size for place in range(out) for tap in range(kernel)]
        share *= sum(taps) / len(taps)
    return share


def nanoseconds_of(shape: tuple[int, ...], isa: str, mode: str) -> float | None:
    """Fastest of twelve averages over about 5 ms each; None where this machine does not have the instruction set."""
    fastest = float("inf")
    iterations = 3
    for _ in range(12):
        command = [str(HOST / PROGRAM), *arguments_of(shape, mode, iterations), "--isa", isa]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode == 2:
            return None
        run.check_returncode()
        match = re.search(r": (\d+) ns a run", run.stdout)
        if match is None:
            raise RuntimeError(f"{command} printed {run.stdout!r}; a time was expected")
        fastest = min(fastest, float(match[1]))
        iterations = min(1000, max(3, int(5e6 / fastest)))
    return fastest


def host_rows() -> list[dict[str, object]]:
    """Times of every shape, instruction set and mode on this machine."""
    rows = []
    for shape in SHAPES:
        for isa, limit in LIMITS.items():
            for mode in MODES if isa != "scalar" else MODES[:1]:
                nanoseconds = nanoseconds_of(shape, isa, mode)
                if nanoseconds is None:
                    continue
                units = units_of(shape)
                percent = 100 * units * inside_share(shape) / limit / clock_hertz() / (nanoseconds * 1e-9)
                gmacs = units * 128 / nanoseconds
                rows.append(
                    row_of(
                        shape,
                        isa,
                        mode,
                        nanoseconds=round(nanoseconds),
                        gmacs=round(gmacs, 1),
                        percent_of_limit=round(percent, 1),
                    )
                )
    return rows


# ---- aarch64 ---------------------------------------------------------------------------------------------------------


def address_of(symbol: str) -> str:
    """Address of a function of the aarch64 program."""
    names = subprocess.run(["aarch64-linux-gnu-nm", AARCH64 / PROGRAM], capture_output=True, text=True, check=True)
    match = re.search(rf"([0-9a-f]+) [Tt] {symbol}\n", names.stdout)
    if match is None:
        raise RuntimeError(f"{AARCH64 / PROGRAM} has no symbol {symbol}: build it with `make test-aarch64`")
    return f"0x{match[1]}"


def counts_of(shape: tuple[int, ...], mode: str) -> tuple[float, float]:
    """Instructions and vector instructions a unit."""
    plugin = f"{AARCH64 / 'count_instructions.so'},begin={address_of('roi_begin')},end={address_of('roi_end')}"
    command = ["qemu-aarch64", "-d", "plugin", "-plugin", plugin, str(AARCH64 / PROGRAM), *arguments_of(shape, mode, 1)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    match = re.search(r"instructions (\d+) vector (\d+)", run.stdout + run.stderr)
    if match is None:
        raise RuntimeError(f"no counts from {command}: {run.stdout}{run.stderr}")
    return int(match[1]) / units_of(shape), int(match[2]) / units_of(shape)


def inner_loop(function: str) -> str:
    """Assembly of the shortest loop of `function` that takes every pixel of a tile through all of its steps."""
    dump = [
        "aarch64-linux-gnu-objdump",
        "-d",
        "--no-show-raw-insn",
        f"--disassemble={function}",
        str(AARCH64 / PROGRAM),
    ]
    lines = re.findall(r"^ *([0-9a-f]+):\t(.*)$", subprocess.run(dump, capture_output=True, text=True).stdout, re.M)
    places = {int(address, 16): i for i, (address, _) in enumerate(lines)}
    loops = []
    for end, (address, text) in enumerate(lines):
        branch = re.match(r"(?:b|b\.\w+|cbz)\t(?:x\d+, )?([0-9a-f]+)", text)
        if branch and int(branch[1], 16) < int(address, 16):
            start = places[int(branch[1], 16)]
            if sum(line.startswith("cnt") for _, line in lines[start:end]) == LOOP_UNITS:
                loops.append([line for _, line in lines[start : end + 1]])
    if not loops:
        raise RuntimeError(f"{function} has no loop over {TILE_PIXELS} pixels")
    # A whole tile falls through its branches: they stay, as instructions, but lead to the next line.
    text = [re.sub(r"[0-9a-f]+ <.*", ".+4", line) for line in min(loops, key=len) if not line.startswith("br\t")]
    return "\n".join(text) + "\n"


def mca_cycles(function: str) -> dict[str, float]:
    """Cycles a unit of a function's inner loop, by core."""
    cycles = {}
    with tempfile.NamedTemporaryFile("w", suffix=".s") as file:
        loop = inner_loop(function)
        units = len(re.findall(r"^cnt", loop, re.M))
        file.write(loop)
        file.flush()
        for core in CORES:
            command = ["llvm-mca-19", "-mtriple=aarch64", f"-mcpu={core}", "-iterations=100", file.name]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            match = re.search(r"Total Cycles: +(\d+)", output)
            if match is None:
                raise RuntimeError(f"{command} printed no cycles: {output[:200]}")
            cycles[core] = round(int(match[1]) / 100 / units, 3)
    return cycles


def aarch64_rows() -> list[dict[str, object]]:
    """Counts of every shape and mode, and llvm-mca's cycles."""
    cycles = {even: mca_cycles(function) for even, function in INNER_LOOPS.items()}
    rows = []
    for shape in SHAPES:
        for mode in MODES:
            instructions, vector = counts_of(shape, mode)
            rows.append(
                row_of(
                    shape,
                    "neon",
                    mode,
                    instructions_per_unit=round(instructions, 3),
                    vector_per_unit=round(vector, 3),
                    mca_cycles_per_unit=cycles[shape[2] % 128 == 0],
                )
            )
    return rows


def main() -> None:
    """Measure, and write the JSON file: a list of rows. What it is of is in the file beside it, `*_machine.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["aarch64", "host"], help="measure one part, keep the other's rows")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "kernels.json")
    arguments = parser.parse_args()
    rows = json.loads(arguments.output.read_text()) if arguments.output.exists() else []
    parts = {"host": host_rows, "aarch64": aarch64_rows}
    for part, measure in parts.items():
        if arguments.only in (None, part):
            rows = [row for row in rows if (row["isa"] == "neon") != (part == "aarch64")] + measure()
    arguments.output.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    machine = {
        "machine": describe(),
        "clock_hertz": clock_hertz(),
        "compiler": compiler_version("cc"),
        "compiler_aarch64": compiler_version("aarch64-linux-gnu-gcc"),
        "qemu": compiler_version("qemu-aarch64"),
        "command": "make bench-kernels",
    }
    arguments.output.with_name("kernels_machine.json").write_text(json.dumps(machine, indent=2) + "\n")
    print(f"{len(rows)} rows in {arguments.output}")


if __name__ == "__main__":
    main()
