"""What is installed: a wheel that works away from its source tree, and nothing that names a machine or a registry."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
from support import ROOT, dyadic_images, small_vgg

import larq_clip


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, built from the source tree and installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def python(installed, code: str, cwd) -> str:
    """Run code with the wheel and the dependencies on the path; -S keeps the editable install out of it."""
    start = f"import sys; sys.path[:0] = [{str(installed)!r}, {sysconfig.get_paths()['purelib']!r}]\n"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", start + code], cwd=cwd, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_wheel_works_without_the_source_tree(installed, tmp_path):
    model, images = small_vgg(), dyadic_images(4)
    data = larq_clip.convert_keras_model(model)
    (tmp_path / "model.lcb").write_bytes(data)
    np.save(tmp_path / "x.npy", images)
    code = (
        "import larq_clip, numpy\n"
        f"assert larq_clip.__file__.startswith({str(installed)!r}), larq_clip.__file__\n"
        "from larq_clip.converter import reader, report\n"
        "reader.read(open('model.lcb', 'rb').read())\n"
        "numpy.save('y.npy', larq_clip.Interpreter('model.lcb').predict(numpy.load('x.npy')))\n"
        "(x, y), _ = larq_clip.datasets.fashion_mnist_subset()\n"
        "assert len(x) == len(y)\n"
    )
    python(installed, code, tmp_path)
    expected = larq_clip.Interpreter(data).predict(images)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)

    program = [installed / "bin" / "larq-clip-run", "model.lcb", "--input", "x.npy", "--output", "z.npy"]
    subprocess.run(program, cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), expected)


def test_version_is_the_same_everywhere():
    header = (ROOT / "runtime" / "include" / "larq_clip.h").read_text()
    (in_header,) = re.findall(r'#define LQC_VERSION "(.*)"', header)
    (in_project,) = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert in_header == in_project == larq_clip.__version__


def test_converter_imports_no_tensorflow_outside_the_importer():
    offenders = [
        path.relative_to(ROOT)
        for path in (ROOT / "converter").rglob("*.py")
        if "keras_importer" not in str(path)
        and re.search(r"^\s*(import|from) (tensorflow|tf_keras|keras|larq\b|larq_clip\._keras)", path.read_text(), re.M)
    ]
    assert not offenders


def test_arithmetic_imports_numpy_only():
    imports = re.findall(r"^(?:import|from) (\w+)", (ROOT / "larq_clip" / "arithmetic.py").read_text(), re.M)
    assert set(imports) <= {"__future__", "collections", "typing", "numpy"}
