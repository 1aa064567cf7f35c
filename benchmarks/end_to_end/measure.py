"""End to end: larq_clip beside larq-compute-engine, LiteRT and ONNX Runtime, one run, interleaved.

    python benchmarks/end_to_end/measure.py --peers build/peers [--models vgg_11 ...] [--rounds 80]

Every engine, precision and number of threads is a process of its own, all of them alive at once and asleep but one. A
round takes them in turn; the ratio of an engine is the median over the rounds of its time by that of larq_clip's
integer model in the same round, with the same number of threads. Results go to benchmarks/results/end_to_end.json, of a
network at once when it is measured: interrupted, a further call goes on with the next one, and with --fresh begins
again. Model files are made once, see build_models.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from machine import describe  # noqa: E402

from larq_clip import _native  # noqa: E402

MODELS = ("BinaryResNetE18", "BinaryDenseNet28", "QuickNet", "BiRealNet", "vgg_small", "vgg_11")
# Engine, precision, file, what Keras computes in its place; the first is what ratios refer to.
SUBJECTS = (
    ("larq_clip", "integer", "integer.lcb", "integer"),
    ("larq_clip", "plain", "plain.lcb", "binary"),
    ("larq-compute-engine", "binary", "binary.tflite", "binary"),
    ("litert", "float32", "float32.tflite", "ordinary"),
    ("litert", "int8", "int8.tflite", "ordinary"),
    ("onnxruntime", "float32", "float32.onnx", "ordinary"),
    ("onnxruntime", "int8", "int8.onnx", "ordinary"),
)
# Least correlation of an engine's output with that of Keras: the softmax of each rounds in its own way, and with random
# weights and two images to calibrate with, int8 is allowed much. What computes something else has about 0.
CORRELATION = {"integer": 0.9999, "plain": 0.99, "binary": 0.99, "float32": 0.9999, "int8": 0.5}
WARMUP = 3
# Processes that open the file, for the time to the first result. LCE takes seconds to be imported.
OPENINGS = {"larq-compute-engine": 1}
OTHER_OPENINGS = 5
NOTE = "larq-compute-engine is made for ARM and not optimized for x86"
ASLEEP_SECONDS = 5.0

Subject = tuple[str, str, str, str]
Records = list[dict[str, Any]]


class Worker:
    """A process that runs one engine. Further ones before it have opened the file and ended.

    Raises:
        RuntimeError: where the engine ends instead of answering, or computes something else than Keras.
    """

    def __init__(self, subject: Subject, folder: Path, threads: int, peers: Path):
        openings = []
        for _ in range(OPENINGS.get(subject[0], OTHER_OPENINGS) - 1):
            self._start(subject, folder, threads, peers)
            openings.append(self.facts["open_to_first_result_ms"])
            self.end()
        self._start(subject, folder, threads, peers)
        openings.append(self.facts["open_to_first_result_ms"])
        self.open_to_first_result_ms = statistics.median(openings)
        self.times: list[float] = []
        least = CORRELATION[subject[1]]
        if self.facts["correlation"] < least:
            self.end()
            raise RuntimeError(
                f"its output has correlation {self.facts['correlation']:.4f} with that of Keras; "
                f"accepted is {least} and more"
            )

    def _start(self, subject: Subject, folder: Path, threads: int, peers: Path) -> None:
        engine, precision, file, key = subject
        own = engine in ("larq_clip", "larq-compute-engine")  # the latter needs this environment's TensorFlow
        packages = [str(p) for p in sorted(peers.glob("lib/python*/site-packages"))] if own else []
        self.log = folder / f"{engine}-{precision}-{threads}.log"
        paths = {"model": folder / file, "image": folder / "image.npy", "expected": folder / "expected.npz"}
        arguments = {"engine": engine, "key": key, "threads": threads, "folders": packages}
        arguments |= {name: str(path) for name, path in paths.items()}
        paths["model"].read_bytes()  # now it is in the system's cache
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable if own else str(peers / "bin/python"), str(HERE / "worker.py"), json.dumps(arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.facts = self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            self.end()
            last = (self.log.read_text().splitlines() or ["nothing"])[-1]
            raise RuntimeError(f"it ended with code {self.process.returncode} and said last, in {self.log}: {last}")
        return json.loads(line)

    def run(self) -> float:
        """Milliseconds of one image."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.peak = answer["peak_rss_bytes"]
        self._wait_until_asleep()
        return answer["milliseconds"]

    def _wait_until_asleep(self) -> None:
        """Threads of some engines spin for a while after a run, which is not to be the time of the next engine."""
        end = time.monotonic() + ASLEEP_SECONDS
        while any(
            stat.read_text().rpartition(")")[2].split()[0] == "R"
            for stat in Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        ):
            if time.monotonic() > end:
                raise RuntimeError(f"its threads are still running {ASLEEP_SECONDS} seconds after a run")
            time.sleep(1e-4)

    def end(self) -> None:
        """Let the process end."""
        self.process.communicate()


def describe_subject(name: str, subject: Subject, threads: int, machine: dict[str, Any]) -> dict[str, Any]:
    """What a record says of any subject, measured or not."""
    return {
        "model": name,
        "engine": subject[0],
        "precision": subject[1],
        "threads": threads,
        "median_ms": None,
        "ratio_to_larq_clip_integer": None,
        "open_to_first_result_ms": None,
        "peak_rss_bytes": None,
        "file_bytes": None,
        "correlation_to_keras": None,
        "machine": {key: machine[key] for key in ("cpu", "cores", "system")},
        "versions": {"python": machine["python"]},
        "date": machine["date"],
        "rounds": 0,
        "note": NOTE if subject[0] == "larq-compute-engine" else None,
    }


def summarize(
    name: str, subject: Subject, threads: int, worker: Worker, reference: Worker, machine: dict[str, Any]
) -> dict[str, Any]:
    """One record of the results."""
    ratios = [mine / its for mine, its in zip(worker.times, reference.times, strict=True)]
    described = describe_subject(name, subject, threads, machine)
    return described | {
        "median_ms": statistics.median(worker.times),
        "ratio_to_larq_clip_integer": statistics.median(ratios),
        "open_to_first_result_ms": worker.open_to_first_result_ms,
        "peak_rss_bytes": worker.peak,
        "file_bytes": worker.facts["file_bytes"],
        "correlation_to_keras": worker.facts["correlation"],
        "versions": {subject[0]: worker.facts["version"], **described["versions"]},
        "rounds": len(worker.times),
    }


def measure(name: str, folder: Path, peers: Path, rounds: int, threads: tuple[int, ...]) -> Records:
    """All engines with one network. A record of an engine that could not be measured says why in "note".

    Raises:
        RuntimeError: where larq_clip's integer model was not made, or does not run.
    """
    made = json.loads((folder / "models.json").read_text())
    if made["integer.lcb"] is not None:
        raise RuntimeError(f"{name} has no integer model to compare with: {made['integer.lcb']}")
    workers: dict[tuple[Subject, int], Worker] = {}
    failures: dict[tuple[Subject, int], str] = {}
    for key in [(subject, count) for count in threads for subject in SUBJECTS]:
        subject, count = key
        if made[subject[2]] is not None:
            failures[key] = f"its converter: {made[subject[2]]}"
            continue
        try:
            workers[key] = Worker(subject, folder, count, peers)
        except RuntimeError as error:
            if subject[0] == "larq_clip":
                raise RuntimeError(f"{name}, larq_clip, {subject[1]}, {count} threads: {error}") from error
            failures[key] = str(error)
    for round_ in range(WARMUP + rounds):
        for worker in workers.values():
            milliseconds = worker.run()
            if round_ >= WARMUP:
                worker.times.append(milliseconds)
    for worker in workers.values():
        worker.end()
    machine = describe()
    records = []
    for count in threads:
        for subject in SUBJECTS:
            key = subject, count
            if key in workers:
                record = summarize(name, subject, count, workers[key], workers[SUBJECTS[0], count], machine)
            else:
                record = describe_subject(name, subject, count, machine) | {"note": failures[key]}
            records.append(record)
    return records


def show(record: dict[str, Any]) -> None:
    """A line on the screen."""
    who = f"{record['model']:18} {record['engine']:20} {record['precision']:8} {record['threads']} threads "
    if record["median_ms"] is None:
        print(f"{who} not measured: {record['note']}", flush=True)
        return
    opening = record["open_to_first_result_ms"]
    print(
        f"{who}{record['median_ms']:9.3f} ms  x{record['ratio_to_larq_clip_integer']:<6.2f} "
        f"first {opening:8.2f} ms (x{opening / record['median_ms']:.2f})  "
        f"{record['peak_rss_bytes'] / 2**20:6.1f} MB  {record['correlation_to_keras']:.4f}",
        flush=True,
    )


def run_key(rounds: int, threads: tuple[int, ...]) -> dict[str, Any]:
    """What must be the same for records of an earlier call to stand beside those of this one."""
    library = hashlib.sha256(_native.library_path().read_bytes()).hexdigest()
    return {"rounds": rounds, "threads": list(threads), "machine": describe(), "library": library}


def main() -> None:
    """Build what is missing, measure what is not recorded yet, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--peers", type=Path, default=ROOT / "build/peers")
    parser.add_argument("--work", type=Path, default=ROOT / "build/end_to_end")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/end_to_end.json")
    parser.add_argument("--fresh", action="store_true", help="measure again what an earlier call has measured")
    parser.add_argument("--remake", default="", metavar="SUFFIX", help="make model files that end so again: .lcb")
    parser.add_argument("--build-only", action="store_true", help="make the model files and measure nothing")
    a = parser.parse_args()
    for i, name in enumerate(a.models, 1):
        if a.remake or not (a.work / name / "models.json").exists():
            print(f"[{i}/{len(a.models)}] {name}: making its model files, minutes", flush=True)
            command = [sys.executable, str(HERE / "build_models.py"), name, str(a.work / name)]
            subprocess.run([*command, "--peers", str(a.peers), "--only", a.remake], check=True)
    if a.build_only:
        return
    key = run_key(a.rounds, tuple(a.threads))
    records: Records = []
    for i, name in enumerate(a.models, 1):
        path = a.work / name / "records.json"
        earlier = json.loads(path.read_text()) if path.exists() and not a.fresh else {"key": None}
        start = time.monotonic()
        if earlier["key"] != key:
            print(f"[{i}/{len(a.models)}] {name}: measuring {a.rounds} rounds", flush=True)
            earlier = {"key": key, "records": measure(name, a.work / name, a.peers, a.rounds, tuple(a.threads))}
            path.write_text(json.dumps(earlier))
        for record in earlier["records"]:
            show(record)
        records += earlier["records"]
        print(f"[{i}/{len(a.models)}] {name}: {time.monotonic() - start:.0f} s", flush=True)
    a.output.parent.mkdir(parents=True, exist_ok=True)
    a.output.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
