"""Estimate the cycles of whole layers on an in-order core (Cortex-A53) and an out-of-order one (Cortex-A72).

    python benchmarks/core_model.py [--isa NAME] [--modes MODE ...] [--cores NAME ...] [--profile FILE]

No such processor is here, so this follows the instructions that `larq-clip-bench-layer` runs under qemu-aarch64, with
their registers and addresses, through a scoreboard of each core: what it issues a cycle, latencies, caches. The plugin
`core_model.c` does it; CORES says what is assumed. A software prefetch is taken to go where the register that it uses
was last seen to point, since the emulator does not say. Prints, for each core, mode and shape, for 128 binary
multiply-accumulates: cycles, instructions, misses of the first-level cache and mispredicted branches.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from kernels import AARCH64, PROGRAM, SHAPES, address_of, arguments_of, units_of

INTEGER, VECTOR, ONE_PIPE, LOAD, STORE, BRANCH = range(6)


class Core(NamedTuple):
    """What is assumed of a core; cycles unless said."""

    out_of_order: bool
    width: int  #: instructions a cycle
    vector_pipes: int
    window: int  #: instructions between issue and retirement, out of order
    level_1_ways: int  #: of 32 KiB
    level_2: int  #: until a line of 512 KiB is there
    memory: int
    mispredicted: int
    vector: int  #: latency of vector arithmetic
    load: int
    wide_load: int  #: issue cycles of a load of 128 bits, which pairs with no vector operation where more than 1


CORES = {
    "in order": Core(False, 2, 1, 1, 4, 15, 120, 8, 4, 4, 2),
    "in order, short": Core(False, 2, 1, 1, 4, 15, 120, 8, 2, 3, 2),
    "out of order": Core(True, 3, 2, 128, 2, 19, 150, 15, 3, 5, 1),
}

FLAGS = 64  #: their number as a register
#: loads that also arrange: vector operations that they contain, out of order
TAKEN_APART = {"ld1r": 1, "ld2": 2, "ld3": 3, "ld4": 4}
ACCUMULATES = re.compile(
    r"([us]adalp|[us]aba|ml[as]|fml|[us]ml[as]l|[us]dot|[us]r?sra|sri|sli|ins|bsl|bi[tf]|movk|bfi|bfxil|\w*x?tu?n2|\w*shrn2)"
)
ONE_PIPE_NAMES = re.compile(
    r"([us]adalp|[us]r?sra|[us]q?r?shl|shl|[us]shr|sri|sli|.*shrn|[us]q?xtu?n|f?mul|ml[as]|[us]ml|[us]dot|[us]mull)"
)
NO_RESULT = re.compile(r"(cmp|cmn|tst|ccm|fcmp|nop|dmb)")


def registers_of(text: str) -> list[int]:
    """Numbers of the registers in operands, as core_model.c has them: 0 to 31 integer, 32 to 63 vector."""
    found = []
    for first, last in re.findall(r"\b(v\d+)\.\w+-(v\d+)\.\w+", text):
        found += range(32 + int(first[1:]), 33 + int(last[1:]))
    for kind, number in re.findall(r"\b([xwvqdshb])(\d+)\b", text):
        found.append(int(number) + (0 if kind in "xw" else 32))
    if re.search(r"\bsp\b", text):
        found.append(31)
    return list(dict.fromkeys(found))


class Memory(NamedTuple):
    """What an access to memory names."""

    data: list[int]  #: registers that it loads or stores
    address: list[int]
    base: int  #: the address's only register, or -1
    distance: int  #: bytes added to it
    moves_base: bool


def memory_of(name: str, operands: str) -> Memory:
    """Take an access to memory apart."""
    data, _, inside = operands.partition("[")
    plain = re.match(r"(x\d+|sp)(?:, #(-?\w+))?\](!)?", inside)
    base = -1 if plain is None else 31 if plain[1] == "sp" else int(plain[1][1:])
    distance = 0 if plain is None or plain[3] else int(plain[2] or "0", 0)
    moves = re.search(r"\](!|, )", inside) is not None
    return Memory([] if name == "prfm" else registers_of(data), registers_of(inside), base, distance, moves)


def describe_memory(name: str, operands: str, core: Core) -> list[int]:
    """What the table's line of a load, store or prefetch holds beside the address."""
    access = memory_of(name, operands)
    vectors = re.search(r"\b[vq]\d+", operands.partition("[")[0]) is not None
    units, wide = 1, 0
    if name.startswith("st"):
        kind, latency, writes, reads = STORE, 1, [], access.address + access.data
        units = len(access.data) * core.wide_load if vectors else 1
    else:
        kind, latency, writes, reads = LOAD, core.load, list(access.data), list(access.address)
        if vectors and name != "ld1r":
            units, wide = len(access.data) * core.wide_load, int(core.wide_load > 1)
        if name in TAKEN_APART:
            latency += core.vector
            units += 2 if name == "ld4" and core.wide_load > 1 else 0
    if access.moves_base:
        writes += access.address[:1]
    vector_part = TAKEN_APART.get(name, 0) if core.out_of_order else 0
    known = [kind, max(1, units), latency, wide, vector_part, int(name == "prfm"), access.base, access.distance]
    return known + [len(writes[:8]), *writes[:8], len(reads[:8]), *reads[:8]]


def describe(name: str, operands: str, core: Core) -> list[int]:
    """What the table's line of an instruction holds beside its address."""
    operands = operands.split("//")[0].split("<")[0]
    if re.match(r"(ld|st|prfm)", name):
        return describe_memory(name, operands, core)
    kind, latency = INTEGER, 1
    reads, writes = registers_of(operands), []
    if re.match(r"(b|bl|br|blr|ret|b\..*|cbn?z|tbn?z)$", name):
        kind = BRANCH
        writes = [30] if name in ("bl", "blr") else []
        reads = [FLAGS] if name.startswith("b.") else [30] if name == "ret" else reads
    else:
        if re.search(r"\b[vqdsb]\d+", operands):
            kind = ONE_PIPE if ONE_PIPE_NAMES.match(name) and core.out_of_order else VECTOR
            latency = core.vector
        elif re.match(r"([us]div|m(ul|add|sub)|[us]m(ul|add))", name):
            latency = 12 if "div" in name else 3
        if not NO_RESULT.match(name):
            first = operands.split(",")[0]
            writes = registers_of(first)
            changes = ACCUMULATES.match(name) or re.match(r"v\d+\.\w+\[", first)
            reads = registers_of(operands[len(first) :]) + (writes if changes else [])
        if re.match(r"(cmp|cmn|tst|ccm|fcmp|adds|subs|ands|bics|negs)", name):
            writes = [*writes, FLAGS]
        if re.match(r"(cs|ccm|cset|cinc|cneg|cinv|fcsel|fccmp|adc|sbc)", name):
            reads = [*reads, FLAGS]
    return [kind, 1, latency, 0, 0, 0, -1, 0, len(writes), *writes, len(reads), *reads]


def write_table(path: Path, core: Core, program: Path) -> None:
    """Describe every instruction of the program."""
    dump = ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", str(program)]
    text = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    with path.open("w") as file:
        for address, name, operands in re.findall(r"^ *([0-9a-f]+):\t(\S+)[ \t]*(.*)$", text, re.M):
            file.write(f"{address} {' '.join(map(str, describe(name, operands, core)))}\n")


def build_plugin(folder: Path) -> Path:
    """Compile core_model.c for this machine."""
    plugin = folder / "core_model.so"
    source = Path(__file__).with_name("core_model.c")
    subprocess.run(["cc", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", source, "-o", plugin], check=True)
    return plugin


def main() -> None:
    """Print the estimates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", default="auto")
    parser.add_argument("--modes", nargs="+", default=["float32:bits"])
    parser.add_argument("--cores", nargs="+", default=list(CORES), choices=list(CORES))
    parser.add_argument("--shapes", nargs="+", type=int, default=range(4), help="numbers in the list of kernels.py")
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--profile", type=Path, help="of the last of them: address, runs and cycles of instructions")
    arguments = parser.parse_args()
    program = AARCH64 / PROGRAM
    places = f"begin={address_of('roi_begin')},end={address_of('roi_end')}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plugin = build_plugin(folder)
        for core_name in arguments.cores:
            core = CORES[core_name]
            write_table(folder / "table", core, program)
            options = f"{plugin},{places},table={folder / 'table'},core={':'.join(str(int(n)) for n in core[:8])}"
            options += f",profile={arguments.profile}" if arguments.profile else ""
            for mode, index in itertools.product(arguments.modes, arguments.shapes):
                layer = [*arguments_of(SHAPES[index], mode, arguments.iterations), "--isa", arguments.isa]
                command = ["qemu-aarch64", "-d", "plugin", "-plugin", options, str(program), *layer]
                run = subprocess.run(command, capture_output=True, text=True, check=True)
                match = re.search(
                    r"cycles (\d+) instructions (\d+) misses (\d+) mispredicted (\d+)", run.stdout + run.stderr
                )
                if match is None:
                    raise RuntimeError(f"no cycles from {command}: {run.stdout}{run.stderr}")
                units = units_of(SHAPES[index]) * arguments.iterations
                figures = " ".join(f"{int(n) / units:.3f}" for n in match.groups())
                print(f"{core_name}: {' '.join(layer[:4])} {mode}: {figures}", flush=True)


if __name__ == "__main__":
    main()
