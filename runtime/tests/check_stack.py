"""What the library needs of a stack, from the frames and calls that gcc writes beside objects (-fcallgraph-info=su).

    check_stack.py larq_clip.h FOLDER

Fails where a frame's size is not known when it is compiled, where a function calls itself, directly or through others,
or where more is needed than the header promises ("at most N KiB of stack").
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

NODE = re.compile(r'node: \{ title: "([^"]+)" label: "([^"]+)"')
EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
FRAME = re.compile(r"(\d+) bytes \((static|dynamic,bounded|dynamic)\)")
INDIRECT = "__indirect_call"
# Pointers to functions are called one inside the other at most so: an op's run, its share of a thread, a kernel, and a
# kernel's choice by the type of an output.
MOST_INDIRECT = 4
RETURN_BYTES = 16  # of a call, which frames do not count everywhere


def read(folder: Path) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Bytes of the frame of every function, and the functions it calls."""
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.ci")):
        text = path.read_text()
        for title, label in NODE.findall(text):
            frame = FRAME.search(label)
            if frame is None:  # of another file, or of the C library
                continue
            if frame[2] == "dynamic":
                raise SystemExit(f"{title}: the size of its frame is not known when it is compiled ({frame[2]})")
            frames[title] = int(frame[1])
        for source, target in EDGE.findall(text):
            calls.setdefault(source, set()).add(target)
    if len(frames) < 100:
        raise SystemExit(f"only {len(frames)} functions were found in {folder}")
    return frames, calls


def check_recursion(frames: dict[str, int], calls: dict[str, set[str]]) -> None:
    """Fail where the calls that are not through pointers have a circle."""
    done: set[str] = set()

    def visit(function: str, path: tuple[str, ...]) -> None:
        if function in path:
            raise SystemExit("recursion: " + " -> ".join([*path[path.index(function) :], function]))
        if function not in done:
            for called in sorted(calls.get(function, ())):
                visit(called, (*path, function))
            done.add(function)

    for function in sorted(frames):
        visit(function, ())


def deepest(frames: dict[str, int], calls: dict[str, set[str]], public: set[str]) -> tuple[int, str]:
    """Most bytes of stack that any function needs with all that it calls, and its name.

    A call through a pointer counts as one of whatever function nothing calls by its name, and needs most.
    """
    called_by_name = set().union(*calls.values())
    by_pointer = [function for function in frames if function not in called_by_name | public]
    known: dict[tuple[str, int], int] = {}

    def depth(function: str, indirect: int) -> int:
        if (function, indirect) not in known:
            inner = [0]
            for called in calls.get(function, ()):
                if called != INDIRECT:
                    inner.append(depth(called, indirect))
                elif indirect > 0:
                    inner.extend(depth(pointed, indirect - 1) for pointed in by_pointer)
            known[function, indirect] = frames.get(function, 0) + RETURN_BYTES + max(inner)
        return known[function, indirect]

    return max((depth(function, MOST_INDIRECT), function) for function in frames)


def main(header: Path, folder: Path) -> None:
    """Check the objects of one build."""
    text = header.read_text()
    promised = re.search(r"at most (\d+) KiB of stack", text)
    if promised is None:
        raise SystemExit(f"{header} does not say 'at most N KiB of stack'")
    frames, calls = read(folder)
    check_recursion(frames, calls)
    most, function = deepest(frames, calls, set(re.findall(r"\b(lqc_\w+)\(", text)))
    print(f"{len(frames)} functions, no recursion; at most {most} bytes of stack, below {function}")
    if most > 1024 * int(promised[1]):
        raise SystemExit(f"the header promises at most {promised[1]} KiB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
