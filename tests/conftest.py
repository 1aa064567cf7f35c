"""What all tests share: skips that count as failures in CI, and a quiet TensorFlow with Keras 2."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

import larq_clip  # chooses Keras 2 before a test imports TensorFlow

ROOT = Path(__file__).parent.parent
IN_CI = bool(os.environ.get("CI"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI nothing may be skipped: a missing tool there is a broken set-up, not a reason."""
    outcome = yield
    report = outcome.get_result()
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI does not accept: {reason}"


def pytest_make_parametrize_id(val):
    """The value as text, without the addresses of objects: workers must agree on the names of tests."""
    pytest_names_it = isinstance(val, (str, bytes, int, float)) or hasattr(val, "__name__") or hasattr(val, "dtype")
    return None if pytest_names_it else re.sub(" at 0x[0-9a-f]+", "", str(val))


@pytest.fixture(autouse=True)
def larq_reads_latent_weights():
    """Larq leaves its quantized scope on where a layer raises inside it, and then nothing learns any more.

    Our code restores it, see `larq_clip._scope`; a test that has Larq's layers raise does so within that scope, too.
    """
    yield
    larq = sys.modules.get("larq")
    if larq is not None and larq.context.should_quantize():
        larq.context.quantized_scope(False).__enter__()  # for the tests behind
        pytest.fail("Larq's quantized scope was left on: call what raises within larq_clip._scope.quantized_scope")


@pytest.fixture(scope="module")
def keras_model():
    """A clipped model of every kind of layer that a small VGG has."""
    from support import small_vgg

    return small_vgg()


@pytest.fixture(scope="module")
def model_bytes(keras_model) -> bytes:
    """The file of `keras_model`."""
    return larq_clip.convert_keras_model(keras_model)


@pytest.fixture(scope="session")
def aarch64_cli() -> Path:
    """larq-clip-run built for aarch64 (static; run it under qemu-aarch64)."""
    for tool in ("aarch64-linux-gnu-gcc", "qemu-aarch64"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian packages gcc-aarch64-linux-gnu and qemu-user)")
    program = ROOT / "build" / "runtime-aarch64" / "larq-clip-run"
    if not program.exists():
        pytest.skip(f"{program} is not built: make test-aarch64 builds it")
    return program
