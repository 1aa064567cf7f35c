"""schema/FORMAT.md says what is true: its example, byte for byte, its limits, and what readers refuse and ignore."""

from __future__ import annotations

import re
from unittest import mock

import numpy as np
import pytest
from format_example import BEGIN, END, FILTERS, FORMAT, IMAGE, RESULT, SIGNS, described, example_bytes

from larq_clip import Interpreter
from larq_clip.converter import codec, ir, memory, reader, spec, spec_integers
from larq_clip.converter.schema import larq_clip_generated as schema
from larq_clip.errors import ModelFileError

TEXT = FORMAT.read_text(encoding="utf-8")


def test_the_example_is_what_the_writer_writes():
    """Every byte is explained, by tables of the schema alone. `python tests/format_example.py` writes it again."""
    shown = TEXT.split(BEGIN)[1].split(END)[0]
    assert shown == described(example_bytes())
    lines = re.findall(r"^0x(\w{4})  ((?:[0-9a-f]{2} ?)+)", shown, re.M)
    assert b"".join(bytes.fromhex(part) for _, part in lines) == example_bytes()


def test_the_example_computes_what_the_text_says():
    data = example_bytes()
    graph = reader.read(data)
    arrays = ir.evaluate(graph, {"x": IMAGE[None]})
    np.testing.assert_array_equal(arrays["s"][0], SIGNS)
    np.testing.assert_array_equal(arrays["y"][0], RESULT)
    np.testing.assert_array_equal(Interpreter(data).predict(IMAGE[None])[0], RESULT)
    a = [12 - 2 * int(np.sum(filters != SIGNS)) for filters in FILTERS]
    assert a == [12, 2] and "a = 12, and y = 6.5" in TEXT and "a = 12 - 2 * 5 = 2, and y = 0" in TEXT
    bits = "".join(str(bit) for bit in SIGNS.ravel())
    shown = re.findall(r"\b[01]{3}\b", TEXT.split("image    (1")[1].split("Filter 0")[0])
    assert "".join(shown[0:2] + shown[6:8]) == bits and set("".join(shown[4:6] + shown[10:12])) == {"0"}
    assert memory.plan(graph).offsets == {"x": 0, "s": 64, "y": 0}
    assert data[0x170:0x178] == (0x52A).to_bytes(8, "little")


def defined() -> dict[str, int]:
    """Numbers that the runtime's headers define."""
    runtime = FORMAT.parents[2] / "runtime"
    code = "".join((runtime / name).read_text() for name in ("src/model.h", "src/bconv2d.h", "include/larq_clip.h"))
    found = re.findall(r"define LQC_(\w+) \(?(\d+)u?(?: << (\d+)\))?", code)
    return {name: int(number) << int(shift or 0) for name, number, shift in found}


def test_limits():
    """The table has the numbers of both readers; test_model.c of the runtime tries its own."""
    runtime = defined()
    rows = re.findall(r"^\| .+ \| ([\d, ]+) \|$", TEXT.split("## Limits")[1], re.M)
    assert [[int(number) for number in row.split(", ")] for row in rows] == [
        [codec.MAX_BYTES],
        [codec.MAX_ITEMS],
        [reader.MAX_TENSOR_RANK, reader.MAX_CONSTANT_RANK],
        [spec.MAX_AXIS],
        [spec.MAX_WINDOW],
        [runtime["MAX_INPUTS"], runtime["MAX_OUTPUTS"]],
        [runtime["MAX_STEPS"]],
        [runtime["MAX_PLANES"]],
        [runtime["MAX_DIMENSION"]],
        [runtime["MAX_K"]],
    ]
    assert (runtime["MAX_ITEMS"], runtime["MAX_WINDOW"]) == (codec.MAX_ITEMS, spec.MAX_WINDOW)
    assert runtime["MAX_DIMENSION"] == spec.MAX_AXIS and runtime["MAX_PLANES"] == spec_integers.MAX_PLANES
    assert (runtime["MAX_RANK"], runtime["MAX_CONSTANT_RANK"]) == (reader.MAX_TENSOR_RANK, reader.MAX_CONSTANT_RANK)


def test_ops_in_place_are_those_of_the_table():
    table = TEXT.split("reads pixel by pixel |")[1].split("others")[0]
    rows = re.findall(r"\| ([\w, ]+) \| (all|from 1 on)", table)
    documented = {name: 0 if which == "all" else 1 for names, which in rows for name in names.split(", ")}
    assert documented == {op.__name__: first for op, first in memory.FIRST_BY_PIXEL.items()}


def readers_accept(data: bytes) -> bool:
    answers = set()
    for read in (reader.read, Interpreter):
        try:
            read(data)
            answers.add(True)
        except ModelFileError:
            answers.add(False)
    assert len(answers) == 1, "the two readers disagree"
    return answers.pop()


def test_a_field_behind_the_known_ones_is_ignored():
    add = schema.ModelAddArenaBytes

    def add_two(builder, arena_bytes):
        add(builder, arena_bytes)
        builder.PrependUint32Slot(9, 77, 0)

    with (
        mock.patch.object(schema, "ModelStart", lambda builder: builder.StartObject(10)),
        mock.patch.object(schema, "ModelAddArenaBytes", add_two),
    ):
        data = example_bytes()
    assert data != example_bytes() and readers_accept(data)
    np.testing.assert_array_equal(Interpreter(data).predict(IMAGE[None])[0], RESULT)


def test_bytes_that_nothing_refers_to_are_ignored():
    assert readers_accept(example_bytes() + bytes(range(16)))


def place_of(words: str) -> int:
    """Where the example's bytes are that are described so."""
    (found,) = re.findall(rf"^0x(\w{{4}}) .*  {re.escape(words)}", described(example_bytes()), re.M)
    return int(found, 16)


@pytest.mark.parametrize(
    "words, byte",
    [
        ("identifier 'LCB1'", ord("M")),
        ("Model.version = 1", 2),
        ("Op.params_type = 3", 200),
        ("BinaryConv2D.epilogue = 2", 100),
        ("BinaryConv2D.offset = 2", 3),
        ("BinaryConv2D.window", 0),
        ("Tensor.offset = 64", 32),
        ("Model.arena_bytes = 96", 95),
        ("Model.tensors", 1),
        ("4 numbers: [2, 2, 2, 3]", 5),
    ],
)
def test_what_is_wrong_is_refused(words, byte):
    data = bytearray(example_bytes())
    data[place_of(words)] = byte
    assert not readers_accept(bytes(data))


def test_bits_above_the_last_one_are_refused():
    data = bytearray(example_bytes())
    data[0x173] = 1  # bit 24 of 24
    assert not readers_accept(bytes(data))
