"""Runs the fuzz targets one after the other, and records what they executed, found and reached.

    python runtime/fuzz/run_fuzzers.py [--seconds 600] [--targets run isa] [--record benchmarks/results/fuzz.json]

Needs the preset "fuzz" built in build/runtime-fuzz and, for --record, "coverage" in build/runtime-coverage (`make fuzz`
and `make fuzz-record` do both). Inputs that reached something new stay in build/fuzz/corpus, where the next run begins;
inputs that failed are written to build/fuzz/findings, and the exit code is then 1.

A finding is looked at with `build/runtime-fuzz/fuzz/fuzz_TARGET build/fuzz/findings/TARGET/FILE`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build"
FUZZ = BUILD / "fuzz"
COVERAGE = BUILD / "runtime-coverage"
SEEDS = {"load": "models", "run": "models", "isa": "models", "npy": "npy"}
LOADER = ("src/error.c", "src/flatbuffer.c", "src/model.c", "src/model_op.c")
# What each target is to reach, as prefixes below runtime/.
SOURCES = {"load": LOADER, "run": ("src/",), "isa": ("src/",), "npy": ("cli/npy.c",)}
# Loader, verifier and session.
TRUSTED = (*LOADER, "src/op.c", "src/plan.c", "src/session.c")
LIMITS = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536"]


def fuzz(target: str, seconds: float) -> dict[str, float]:
    """Run one target until it has used so many CPU seconds; executions, CPU seconds and findings."""
    corpus, findings = FUZZ / "corpus" / target, FUZZ / "findings" / target
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    old, executions, cpu = set(findings.iterdir()), 0, 0.0
    found: set[Path] = set()
    while cpu < seconds and not found:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [BUILD / "runtime-fuzz" / "fuzz" / f"fuzz_{target}", corpus, FUZZ / "seeds" / SEEDS[target], *LIMITS]
        command += [f"-max_total_time={math.ceil(seconds - cpu)}", f"-artifact_prefix={findings}/"]
        run = subprocess.run([*command, "-print_final_stats=1"], capture_output=True, text=True, errors="replace")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        executed = re.search(r"stat::number_of_executed_units: (\d+)", run.stderr)
        found = set(findings.iterdir()) - old
        if executed is None or (run.returncode != 0 and not found):
            raise SystemExit(f"fuzz_{target} ended with {run.returncode}:\n{run.stderr[-4000:]}")
        executions += int(executed[1])
        cpu += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        for path in sorted(found):
            print(f"{target}: finding {path}\n{run.stderr[-4000:]}", flush=True)
    result = {"executions": executions, "cpu_seconds": round(cpu, 1), "findings": len(found)}
    print(f"{target}: {result}", flush=True)
    return result


def measure(name: str, commands: list[list[Path | str]]) -> Path:
    """Run programs of the coverage build and merge what they recorded."""
    raw = FUZZ / "coverage" / name
    raw.mkdir(parents=True, exist_ok=True)
    for old in raw.iterdir():
        old.unlink()
    environment = {**os.environ, "LLVM_PROFILE_FILE": str(raw / "%p.profraw")}
    for command in commands:
        subprocess.run(command, env=environment, check=True, capture_output=True)
    merged = raw / "merged.profdata"
    subprocess.run([tool("llvm-profdata"), "merge", "-o", merged, *raw.glob("*.profraw")], check=True)
    return merged


def tool(name: str) -> str:
    """The LLVM tool of the same version as clang."""
    return subprocess.run(
        ["clang", f"-print-prog-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def line_coverage(profile: Path, programs: list[Path], sources: tuple[str, ...]) -> float:
    """Percent of the lines of `sources` (prefixes below runtime/) that were executed."""
    objects = [argument for program in programs[1:] for argument in ("-object", program)]
    command = [tool("llvm-cov"), "export", "-summary-only", "-instr-profile", profile, programs[0], *objects]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    lines = [
        file["summary"]["lines"]
        for file in report["data"][0]["files"]
        if str(Path(file["filename"]).resolve().relative_to(ROOT / "runtime")).startswith(sources)
    ]
    return round(100 * sum(line["covered"] for line in lines) / sum(line["count"] for line in lines), 1)


def commit() -> str:
    """The commit of the tree, marked where files differ from it."""
    return subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def record(results: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    """A list as benchmarks/results/fuzz.json holds it; its last item is of all targets and the C tests together."""
    programs = {target: COVERAGE / "fuzz" / f"fuzz_{target}" for target in results}
    replays = {
        target: [program, "-runs=0", FUZZ / "corpus" / target, FUZZ / "seeds" / SEEDS[target]]
        for target, program in programs.items()
    }
    report: list[dict[str, object]] = []
    for target, result in results.items():
        profile = measure(target, [replays[target]])
        percent = line_coverage(profile, [programs[target]], SOURCES[target])
        report.append({"target": target, **result, "line_coverage_percent": percent, "commit": commit()})
    tests = sorted(path for path in COVERAGE.glob("test_*") if os.access(path, os.X_OK) and path.is_file())
    profile = measure("all", [*replays.values(), *([test] for test in tests)])
    percent = line_coverage(profile, [*programs.values(), *tests], TRUSTED)
    total = {key: round(sum(result[key] for result in results.values()), 1) for key in ("executions", "cpu_seconds")}
    total["findings"] = sum(result["findings"] for result in results.values())
    name = "all targets and the C tests: lines of loader, verifier and session"
    return [*report, {"target": name, **total, "line_coverage_percent": percent, "commit": commit()}]


def main() -> None:
    """Fuzz, then perhaps record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600, help="CPU seconds of each target")
    parser.add_argument("--targets", nargs="+", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--record", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    results = {target: fuzz(target, arguments.seconds) for target in arguments.targets}
    if arguments.record:
        report = record(results)
        arguments.record.write_text(json.dumps(report, indent=2) + "\n")
        print(json.dumps(report, indent=2))
    sys.exit(any(result["findings"] for result in results.values()))


if __name__ == "__main__":
    main()
