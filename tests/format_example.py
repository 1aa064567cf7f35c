"""The worked example of schema/FORMAT.md: a tiny model, and what each of its bytes is, found by the schema alone.

`python tests/format_example.py` writes the example into FORMAT.md again.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from converter_support import Sketch

import larq_clip.converter.schema
from larq_clip.converter import ir, writer
from larq_clip.converter.ir import DType, Tensor, Window

FOLDER = Path(larq_clip.converter.schema.__file__).parent
FORMAT = FOLDER / "FORMAT.md"
BEGIN, END = "<!-- example: tests/format_example.py -->\n```text\n", "```\n<!-- end of example -->"
SCALARS = {"ubyte": "B", "byte": "b", "uint": "I", "int": "i", "ulong": "Q", "float": "f"}

# One image of 2x2 pixels and 3 channels, and what the model makes of it; all of it can be checked by hand.
IMAGE = np.array([[[1, -2, 3], [-4, 5, -6]], [[7, 8, -9], [0, -1, 2]]], np.float32)
SIGNS = np.array([[[0, 1, 0], [1, 0, 1]], [[0, 0, 1], [0, 1, 0]]], np.uint8)
FILTERS = np.array(
    [
        [[[0, 1, 0], [1, 0, 1]], [[0, 0, 1], [0, 1, 0]]],  # agrees with the image's signs everywhere
        [[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]],  # all +1
    ],
    np.uint8,
)
RESULT = np.array([[[6.5, 0.0]]], np.float32)


def example() -> ir.Graph:
    """Bitpack, then a binary convolution with two filters over the whole image: y = a / 2 + [0.5, -1]."""
    sketch = Sketch(IMAGE.shape).sign("s")
    sketch.tensors["y"] = Tensor("y", DType.FLOAT32, RESULT.shape)
    sketch.ops.append(
        ir.BinaryConv2D(
            "y",
            ("s",),
            ("y",),
            window=Window(2, 2),
            weights=FILTERS,
            epilogue=ir.Epilogue.AFFINE,
            multiplier=np.array([0.5, 0.5], np.float32),
            offset=np.array([0.5, -1], np.float32),
        )
    )
    return sketch.graph("y")


def example_bytes() -> bytes:
    with mock.patch.object(writer, "producer", lambda: "example"):
        return writer.write(example())


def counted(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


class Row(NamedTuple):
    """Bytes of the file, and what they are."""

    start: int
    size: int
    words: str


class Walk:
    """Follows every offset of a file, by the tables of larq_clip.fbs."""

    def __init__(self, data: bytes):
        text = re.sub(r"//.*", "", (FOLDER / "larq_clip.fbs").read_text(encoding="utf-8"))
        bodies = {(kind, name): body for kind, name, body in re.findall(r"(\w+) (\w+)[ \w:]*{(.*?)}", text, re.S)}
        self.enums = {
            name: dict(enumerate(re.findall(r"(\w+) *=", body)))
            for (kind, name), body in bodies.items()
            if kind == "enum"
        }
        union = re.findall(r"\w+", bodies["union", "OpParams"])
        self.unions = {"OpParams": {i + 1: name for i, name in enumerate(union)}}
        self.enums["OpParamsType"] = self.unions["OpParams"]
        fields = {key: re.findall(r"(\w+) *: *(\[?\w+\]?)", body) for key, body in bodies.items()}
        self.structs = {name: found for (kind, name), found in fields.items() if kind == "struct"}
        self.tables = {name: found for (kind, name), found in fields.items() if kind == "table"}
        self.data, self.rows = data, dict[int, Row]()
        self.add(0, 4, f"offset of the root table: Model at {self.table_at(0, 'Model'):#06x}")
        self.add(4, 4, "identifier 'LCB1'")

    def read(self, place: int, code: str):
        return struct.unpack_from("<" + code, self.data, place)[0]

    def add(self, start: int, size: int, words: str) -> None:
        self.rows[start] = Row(start, size, words)

    def table_at(self, place: int, name: str) -> int:
        """Follow the offset at `place` to a table; returns where it is."""
        start = place + self.read(place, "I")
        if start in self.rows:
            return start
        vtable = start - self.read(start, "i")
        slots = [self.read(vtable + 4 + 2 * i, "H") for i in range(self.read(vtable, "H") // 2 - 2)]
        self.add(vtable, self.read(vtable, "H"), f"field list of {name}: its size, the table's, offsets {slots}")
        self.add(start, 4, f"{name}: field list at {vtable:#06x}")
        names: list[tuple[str, str]] = []
        for field, kind in self.tables[name]:
            names += [(f"{field}_type", f"{kind}Type")] if kind in self.unions else []
            names.append((field, kind))
        tag = 0
        for (field, kind), slot in zip(names, slots):
            if slot == 0:
                continue
            if kind in self.unions:
                kind = self.unions[kind][tag]
            tag = self.field(start + slot, f"{name}.{field}", kind)
        return start

    def field(self, place: int, words: str, kind: str) -> int:
        """One field of a table or element of a vector; returns a scalar's value."""
        if kind in SCALARS or kind in self.enums:
            code = SCALARS.get(kind, "B")
            value = self.read(place, code)
            named = f" {self.enums[kind][value]}" if kind in self.enums else ""
            self.add(place, struct.calcsize(code), f"{words} = {value}{named}")
            return value
        if kind in self.structs:
            code = "".join(SCALARS[inner] for _, inner in self.structs[kind])
            values = list(struct.unpack_from("<" + code, self.data, place))
            self.add(place, struct.calcsize(code), f"{words} = {values}")
        elif kind in self.tables:
            self.add(place, 4, f"{words}: {kind} at {self.table_at(place, kind):#06x}")
        else:
            self.add(place, 4, f"{words}: at {self.vector_at(place, words, kind):#06x}")
        return 0

    def vector_at(self, place: int, words: str, kind: str) -> int:
        """Follow the offset at `place` to a string or a vector; returns where it is."""
        start = place + self.read(place, "I")
        number, inner = self.read(start, "I"), kind.strip("[]")
        if start in self.rows:
            return start
        if kind == "string":
            text = self.data[start + 4 : start + 4 + number].decode()
            self.add(start, 4 + number + 1, f"{counted(number, 'byte')}, {text!r}, and a 0")
        elif inner in self.tables:
            self.add(start, 4, counted(number, "offset"))
            for i in range(number):
                self.field(start + 4 + 4 * i, f"{words.split('.')[1]}[{i}]", inner)
        elif words == "Constant.data":
            self.add(start, 4, f"{counted(number, 'byte')} of data")
            self.add(start + 4, number, "the data")
        else:
            values = struct.unpack_from(f"<{number}{SCALARS[inner]}", self.data, start + 4)
            size = number * struct.calcsize(SCALARS[inner])
            self.add(start, 4 + size, f"{counted(number, 'number')}: {list(values)}")
        return start


def described(data: bytes) -> str:
    """All bytes in the order of the file, 12 in a line, and what they are."""
    lines, place = [], 0
    for row in [*sorted(Walk(data).rows.values()), Row(len(data), 0, "")]:
        if row.start != place:
            assert place < row.start and not any(data[place : row.start]), f"bytes from {place} on are not padding"
            lines += dump(data, Row(place, row.start - place, "padding"))
        lines += dump(data, row) if row.size else []
        place = row.start + row.size
    return "".join(line.rstrip() + "\n" for line in lines)


def dump(data: bytes, row: Row) -> list[str]:
    words, lines = row.words, []
    for start in range(row.start, row.start + row.size, 12):
        part = data[start : min(start + 12, row.start + row.size)]
        lines.append(f"{start:#06x}  {part.hex(' '):35}  {words}")
        words = ""
    return lines


if __name__ == "__main__":
    text = FORMAT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    FORMAT.write_text(before + BEGIN + described(example_bytes()) + END + rest.split(END)[1], encoding="utf-8")
