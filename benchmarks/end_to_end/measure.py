"""End to end: larq_clip beside larq-compute-engine, LiteRT and ONNX Runtime, one run, interleaved.

    python benchmarks/end_to_end/measure.py --peers build/peers [--models vgg_11 ...] [--rounds 200]

Every engine, precision and number of threads is a process of its own, all of them alive at once and idle but one. A
round runs each once; the ratio of an engine is the median over the rounds of its time by that of larq_clip's integer
model in the same round, with the same number of threads. Results go to benchmarks/results/end_to_end.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from machine import describe  # noqa: E402

MODELS = ("BinaryResNetE18", "BinaryDenseNet28", "QuickNet", "BiRealNet", "vgg_small", "vgg_11")
# Engine, precision, file; the first is what ratios refer to.
SUBJECTS = (
    ("larq_clip", "integer", "integer.lcb"),
    ("larq_clip", "plain", "plain.lcb"),
    ("larq-compute-engine", "binary", "binary.tflite"),
    ("litert", "float32", "float32.tflite"),
    ("litert", "int8", "int8.tflite"),
    ("onnxruntime", "float32", "float32.onnx"),
    ("onnxruntime", "int8", "int8.onnx"),
)
WARMUP = 5
NOTE = "larq-compute-engine is made for ARM and not optimized for x86"


class Worker:
    """A process that runs one engine."""

    def __init__(self, engine: str, model: Path, image: Path, threads: int, peers: Path):
        own = engine in ("larq_clip", "larq-compute-engine")  # the latter needs this environment's TensorFlow
        python = sys.executable if own else str(peers / "bin" / "python")
        folders = [str(p) for p in sorted(peers.glob("lib/python*/site-packages"))] if own else []
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), engine, str(model), str(image), str(threads), *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.facts = self._answer()
        self.times: list[float] = []

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args)} ended with code {self.process.wait()}")
        return json.loads(line)

    def run(self) -> float:
        """Milliseconds of one image."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.peak = answer["peak_rss_bytes"]
        return answer["milliseconds"]

    def end(self) -> None:
        """Let the process end."""
        self.process.communicate()


def summarize(
    name: str, subject: tuple[str, str, str], threads: int, worker: Worker, reference: Worker, machine: dict[str, Any]
) -> dict[str, Any]:
    """One record of the results."""
    ratios = [mine / its for mine, its in zip(worker.times, reference.times, strict=True)]
    return {
        "model": name,
        "engine": subject[0],
        "precision": subject[1],
        "threads": threads,
        "median_ms": statistics.median(worker.times),
        "ratio_to_larq_clip_integer": statistics.median(ratios),
        "peak_rss_bytes": worker.peak,
        "file_bytes": worker.facts["file_bytes"],
        "machine": {key: machine[key] for key in ("cpu", "cores", "system")},
        "versions": {subject[0]: worker.facts["version"], "python": machine["python"]},
        "date": machine["date"],
        "rounds": len(worker.times),
        "note": NOTE if subject[0] == "larq-compute-engine" else None,
    }


def measure(name: str, folder: Path, peers: Path, rounds: int, threads: tuple[int, ...]) -> list[dict[str, Any]]:
    """All engines with one network.

    Raises:
        RuntimeError: where an engine does not run its file, or larq_clip's integer model was not made.
    """
    made = json.loads((folder / "models.json").read_text())
    if made["integer.lcb"] is not None:
        raise RuntimeError(f"{name} has no integer model to compare with: {made['integer.lcb']}")
    workers = {
        (subject, count): Worker(subject[0], folder / subject[2], folder / "image.npy", count, peers)
        for count in threads
        for subject in SUBJECTS
        if made[subject[2]] is None
    }
    for round_ in range(WARMUP + rounds):
        for worker in workers.values():
            milliseconds = worker.run()
            if round_ >= WARMUP:
                worker.times.append(milliseconds)
    machine = describe()
    records = [
        summarize(name, subject, count, worker, workers[SUBJECTS[0], count], machine)
        for (subject, count), worker in workers.items()
    ]
    for worker in workers.values():
        worker.end()
    return records


def main() -> None:
    """Build what is missing, measure, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--peers", type=Path, default=ROOT / "build/peers")
    parser.add_argument("--work", type=Path, default=ROOT / "build/end_to_end")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/end_to_end.json")
    a = parser.parse_args()
    records = []
    for name in a.models:
        folder = a.work / name
        if not (folder / "models.json").exists():
            command = [sys.executable, str(HERE / "build_models.py"), name, str(folder), "--peers", str(a.peers)]
            subprocess.run(command, check=True)
        for record in measure(name, folder, a.peers, a.rounds, tuple(a.threads)):
            records.append(record)
            print(
                f"{name:18} {record['engine']:20} {record['precision']:8} {record['threads']} threads "
                f"{record['median_ms']:9.3f} ms  x{record['ratio_to_larq_clip_integer']:.2f}",
                flush=True,
            )
    a.output.parent.mkdir(parents=True, exist_ok=True)
    a.output.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
