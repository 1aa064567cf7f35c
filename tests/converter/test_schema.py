"""The generated code of the file format is that of the schema."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import larq_clip.converter.schema
from larq_clip.converter import codec, ir
from larq_clip.converter.schema import larq_clip_generated as schema

FOLDER = Path(larq_clip.converter.schema.__file__).parent
COMMITTED_WITH = "2.0.8"


def definitions(code: str) -> set[str]:
    """Setters with their slots and defaults, enum values and struct layouts: what decides the bytes of a file."""
    return set(
        re.findall(r"def \w+Add\w+\(.*?Slot\(.*|^    \w+ = -?\d+$|def Create\w+\(.*|builder\.Prep\w*\(.*", code, re.M)
    )


def test_generated_code_is_current(tmp_path):
    if shutil.which("flatc") is None:
        pytest.skip("flatc is not installed (Debian package flatbuffers-compiler)")
    command = ["flatc", "--python", "--gen-onefile", "-o", str(tmp_path), str(FOLDER / "larq_clip.fbs")]
    subprocess.run(command, check=True)
    fresh = (tmp_path / "larq_clip_generated.py").read_text()
    committed = (FOLDER / "larq_clip_generated.py").read_text()
    version = subprocess.run(["flatc", "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]
    hint = f"converter/schema/larq_clip_generated.py is not current (flatc {version}); run: make schema"
    assert definitions(committed), "the pattern finds nothing"
    if version == COMMITTED_WITH:
        assert fresh == committed, hint
    else:  # other releases of flatc write the same definitions in other words
        names = re.findall(r"^class (\w+)", committed, re.M)
        assert all(re.search(rf"^class {name}\b", fresh, re.M) for name in names), hint


def test_every_op_and_field_of_the_schema_is_known():
    """The table that writer and reader share covers the schema, and the IR's enums have its numbers."""
    tags = {name: tag for name, tag in vars(schema.OpParams).items() if isinstance(tag, int) and tag}
    assert {op.__name__: tag for tag, op in codec.OP_BY_TAG.items()} == tags
    code = (FOLDER / "larq_clip_generated.py").read_text()
    for op, fields in (*codec.OP_FIELDS.items(), *codec.TABLE_FIELDS.items()):
        in_schema = re.findall(rf"^def {op.__name__}Add(\w+)\(", code, re.M)
        assert [field.schema_name for field in fields] == in_schema
    for enum, generated in (
        (ir.DType, schema.DType),
        (ir.ArithmeticKind, schema.ArithmeticKind),
        (ir.Epilogue, schema.Epilogue),
        (ir.FunctionKind, schema.FunctionKind),
        (ir.StepKind, schema.StepKind),
    ):
        numbers = {name.upper(): value for name, value in vars(generated).items() if isinstance(value, int)}
        assert {e.name.replace("_", ""): int(e) for e in enum if e >= 0} == {
            name: value for name, value in numbers.items()
        }
