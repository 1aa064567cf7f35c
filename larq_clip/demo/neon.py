"""The demo's third opinion: the NEON kernels, cross-compiled from the source tree and run under qemu-aarch64."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from larq_clip.errors import RuntimeLibraryError

SOURCES = Path(__file__).parents[2] / "runtime"
COMPILER = "aarch64-linux-gnu-gcc"
EMULATORS = ("qemu-aarch64", "qemu-aarch64-static")
PROGRAM = "larq-clip-run"
ARM64 = ("aarch64", "arm64")


def find_tool(*names: str) -> str | None:
    """Path of the first of these programs that is on PATH or beside this Python."""
    folders = (None, str(Path(sys.executable).parent))
    return next((found for name in names for folder in folders if (found := shutil.which(name, path=folder))), None)


def why_not() -> str | None:
    """The reason why the NEON build cannot be made or run here; None where it can."""
    if platform.machine().lower() in ARM64:
        return f"this machine is {platform.machine()}: the native runtime is the NEON build"
    if not (SOURCES / "CMakeLists.txt").is_file():
        return f"no runtime sources at {SOURCES} (larq_clip is installed without its source tree)"
    wanted = {
        COMPILER: (COMPILER,),
        EMULATORS[0]: EMULATORS,
        "cmake": ("cmake",),
        "ninja or make": ("ninja", "make"),
    }
    missing = [label for label, names in wanted.items() if find_tool(*names) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def require_tool(*names: str) -> str:
    """`find_tool`, of which there must be one.

    Raises:
        RuntimeLibraryError: where there is none.
    """
    found = find_tool(*names)
    if found is None:
        raise RuntimeLibraryError(f"{' or '.join(names)} is not installed, and the NEON build needs it")
    return found


def run_tool(command: Sequence[str | Path], doing: str) -> None:
    """Run a program to its end.

    Raises:
        RuntimeLibraryError: where it fails; with the last lines of what it printed.
    """
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace")
    if done.returncode:
        tail = " | ".join((done.stdout + done.stderr).strip().splitlines()[-5:])
        raise RuntimeLibraryError(f"{doing} failed with exit code {done.returncode}: {tail or 'it printed nothing'}")


def build_program(folder: Path) -> Path:
    """Cross-compile `larq-clip-run`, one static aarch64 binary, in `folder`; returns its path.

    Raises:
        RuntimeLibraryError: where the build fails.
    """
    cmake = require_tool("cmake")
    ninja = find_tool("ninja")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else ["-G", "Unix Makefiles"]
    options = [
        f"-DCMAKE_TOOLCHAIN_FILE={SOURCES / 'cmake' / 'aarch64-linux-gnu.cmake'}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DLQC_STATIC_CLI=ON",
        "-DLQC_TESTS=OFF",
    ]
    doing = "building the runtime for aarch64"
    run_tool([cmake, "-S", SOURCES, "-B", folder, *generator, *options], doing)
    run_tool([cmake, "--build", folder, "--target", PROGRAM, "--parallel", "2"], doing)
    return folder / PROGRAM


def predict(model: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run images ``(n, height, width, channels)`` through a model file in the NEON build; returns ``(n, classes)``.

    Raises:
        RuntimeLibraryError: where building or running fails. Ask `why_not` first.
    """
    with tempfile.TemporaryDirectory(prefix="larq-clip-demo-") as temporary:
        folder = Path(temporary)
        program = build_program(folder / "build")
        (folder / "model.lcb").write_bytes(model)
        np.save(folder / "images.npy", images)
        command: list[str | Path] = [require_tool(*EMULATORS), program, folder / "model.lcb"]
        command += ["--input", folder / "images.npy", "--output", folder / "scores.npy"]
        run_tool(command, "running the aarch64 program under qemu")
        return np.load(folder / "scores.npy", allow_pickle=False)
