"""Counts of instructions by function: of a program whose functions are known."""

import importlib
import shutil
import subprocess
import sys

import pytest
from support import ROOT

pytestmark = pytest.mark.source

PROGRAM = """
#include <stdlib.h>
#define KEPT __attribute__((noinline, noclone))
int x[4096];
KEPT static int scalar(int n) {
  unsigned y = 1;
  for (int i = 0; i < n; ++i) {
    y = y * 1664525u + 1013904223u;
  }
  return (int)y;
}
KEPT static int vectors(const int *y, int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) {
    sum += y[i] * y[i];
  }
  return sum;
}
KEPT int lqc_session_run(int n) {
  return scalar(n) + vectors(x, 4096);
}
int main(int argc, char **argv) {
  return lqc_session_run(argc > 1 ? atoi(argv[1]) : 0) == 1;
}
"""


@pytest.fixture
def scalar_share(monkeypatch):
    for tool in ("cc", "aarch64-linux-gnu-gcc", "qemu-aarch64", "readelf"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("scalar_share")
    del sys.modules["scalar_share"]


@pytest.mark.parametrize("link", [["-static"], ["-static-pie", "-fPIE"]], ids=["fixed", "anywhere"])
def test_counts_of_functions(scalar_share, tmp_path, link):
    source, program = tmp_path / "known.c", tmp_path / "known"
    source.write_text(PROGRAM)
    subprocess.run(["aarch64-linux-gnu-gcc", "-O3", *link, source, "-o", program], check=True)
    plugin = scalar_share.build_plugin(tmp_path)
    once, twice = (scalar_share.count(["qemu-aarch64"], plugin, program, [n]) for n in ("1000", "3000"))
    twice.subtract(once)
    of_loop = twice["known.c: scalar", "all"]
    assert 2000 * 3 <= of_loop <= 2000 * 6
    assert once["known.c: scalar", "vector"] == 0
    assert twice["known.c: vectors", "all"] == 0  # runs as often
    assert once["known.c: vectors", "all"] >= 1024 * 3
    assert 1024 <= once["known.c: vectors", "vector"] <= once["known.c: vectors", "all"]
