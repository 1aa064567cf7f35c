"""Runs the fuzz targets, and records what they executed, found and reached.

    python runtime/fuzz/run_fuzzers.py [--seconds 600] [--jobs 2] [--targets run isa] [--record FILE.json]
    python runtime/fuzz/run_fuzzers.py --fixed [--jobs 2]

Needs the preset "fuzz" built in build/runtime-fuzz and, for --record, "coverage" in build/runtime-coverage: `make
fuzz`, `make fuzz-record` and `make fuzz-ci` do this. Inputs that reached something new stay in build/fuzz/corpus, where
the next run begins; inputs that failed are written to build/fuzz/findings, and the exit code is then 1. With --record
what was done on this commit is kept in build/fuzz/progress, so that a run that was interrupted goes on.

With --fixed every target executes a fixed number of inputs, the same ones each time: nothing but a change of the
sources changes what is found.

A finding is looked at with `build/runtime-fuzz/fuzz/fuzz_TARGET build/fuzz/findings/TARGET/FILE`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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
# Wide of what any input takes: on a busy machine a slow one is no finding.
LIMITS = ["-timeout=120", "-rss_limit_mb=4096", "-max_len=65536", "-print_final_stats=1"]
# Half a minute of CPU each. What depends on time, addresses or the order of threads is off: no schedule by entropy, no
# dictionary of what was compared, one thread.
FIXED_RUNS = {"load": 900_000, "run": 480_000, "isa": 400_000, "npy": 7_000_000}
FIXED = ["-seed=1", "-entropic=0", "-use_cmp=0", "-reload=0"]
SLICE_SECONDS = 120


def execute(target: str, arguments: list[Path | str], name: str, environment: dict[str, str]) -> dict[str, float]:
    """Run a target once, its log build/fuzz/logs/NAME.log; executions, CPU seconds and findings, which are printed."""
    findings, log = FUZZ / "findings" / target, FUZZ / "logs" / f"{name}.log"
    findings.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    old = set(findings.iterdir())
    program = BUILD / "runtime-fuzz" / "fuzz" / f"fuzz_{target}"
    with log.open("wb") as file:
        command = [program, *arguments, *LIMITS, f"-artifact_prefix={findings}/"]
        process = subprocess.Popen(command, stderr=file, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text(errors="replace")
    executed = re.search(r"stat::number_of_executed_units: (\d+)", text)
    found = sorted(set(findings.iterdir()) - old)
    if not found and (executed is None or process.returncode != 0):
        raise SystemExit(f"fuzz_{target} ended with {process.returncode}:\n{text[-4000:]}")
    for path in found:
        print(f"{target}: finding {path}\n{text[-4000:]}", flush=True)
    return {
        "executions": int(executed[1]) if executed else 0,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "findings": len(found),
    }


def fuzz(target: str, seconds: float, progress: Path | None) -> dict[str, float]:
    """Run one target until it has used so many CPU seconds; what `progress` holds of this commit counts."""
    corpus = FUZZ / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    done: dict[str, float] = {"executions": 0, "cpu_seconds": 0.0, "findings": 0}
    if progress is not None and progress.exists():
        done = json.loads(progress.read_text())
    while done["cpu_seconds"] < seconds and not done["findings"]:
        wall = math.ceil(min(SLICE_SECONDS, seconds - done["cpu_seconds"]))
        arguments = [corpus, FUZZ / "seeds" / SEEDS[target], f"-max_total_time={wall}"]
        result = execute(target, arguments, target, {})
        done = {key: value + result[key] for key, value in done.items()}
        if progress is not None:
            progress.parent.mkdir(parents=True, exist_ok=True)
            temporary = progress.with_suffix(".tmp")
            temporary.write_text(json.dumps(done))
            temporary.replace(progress)
    done["cpu_seconds"] = round(done["cpu_seconds"], 1)
    print(f"{target}: {done}", flush=True)
    return done


def fuzz_fixed(target: str) -> dict[str, float]:
    """Run one target on the same inputs each time; nothing is kept but findings."""
    seeds = FUZZ / f"seeds_{target}.txt"
    seeds.write_text(",".join(str(path) for path in sorted((FUZZ / "seeds" / SEEDS[target]).iterdir())))
    arguments = [f"-seed_inputs=@{seeds}", f"-runs={FIXED_RUNS[target]}", *FIXED]
    result = execute(target, arguments, f"{target}_fixed", {"LQC_FUZZ_ONE_THREAD": "1"})
    log = (FUZZ / "logs" / f"{target}_fixed.log").read_text(errors="replace")
    reached = re.search(r"DONE +(cov: \d+ ft: \d+ corp: \S+)", log)
    print(f"{target}: {result}, {reached[1] if reached else 'not done'}", flush=True)
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
    parser.add_argument("--fixed", action="store_true", help="fixed numbers of inputs, the same each time")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="targets at a time")
    parser.add_argument("--targets", nargs="+", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--record", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.record and shutil.which(tool("llvm-cov")) is None:
        raise SystemExit("--record needs llvm-profdata and llvm-cov (Debian package llvm)")
    at = commit() if arguments.record else ""
    progress = FUZZ / "progress"
    if progress.exists() and at.endswith("-dirty"):  # the same name stands for other sources
        shutil.rmtree(progress)

    def one(target: str) -> dict[str, float]:
        if arguments.fixed:
            return fuzz_fixed(target)
        return fuzz(target, arguments.seconds, progress / at / f"{target}.json" if at else None)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = dict(zip(arguments.targets, pool.map(one, arguments.targets), strict=True))
    if arguments.record:
        report = record(results)
        arguments.record.write_text(json.dumps(report, indent=2) + "\n")
        print(json.dumps(report, indent=2))
    sys.exit(any(result["findings"] for result in results.values()))


if __name__ == "__main__":
    main()
