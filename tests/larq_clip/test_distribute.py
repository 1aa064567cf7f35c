"""Training under `tf.distribute`: the programs in tests/larq_clip/distribute, each a process, on loopback only."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAMS = Path(__file__).parent / "distribute"
TIMEOUT = 240  # seconds; a collective operation that not all workers reach waits for ever
sys.path.insert(0, str(PROGRAMS))


def start(program: str, *arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS / program), *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes: list[subprocess.Popen]) -> None:
    """Wait for all; if one fails or hangs, end the others and fail with what each of them printed."""
    outputs = []
    try:
        for process in processes:
            try:
                outputs.append(process.communicate(timeout=TIMEOUT)[0])
            except subprocess.TimeoutExpired:
                process.kill()
                outputs.append(f"{process.communicate()[0]}\nhung for {TIMEOUT} s")
    finally:
        for process in processes:
            process.kill()
    texts = [f"process {i}, exit code {p.returncode}:\n{o[-3000:]}" for i, (p, o) in enumerate(zip(processes, outputs))]
    assert all(process.returncode == 0 for process in processes), "\n\n".join(texts)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_two_devices():
    finish([start("mirrored.py")])


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What two workers found, and the folder that they wrote into."""
    folder = tmp_path_factory.mktemp("workers")
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    configs = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}) for i in range(2)]
    finish([start("worker.py", str(folder), TF_CONFIG=config) for config in configs])
    return [json.loads((folder / f"worker-{i}.json").read_text()) for i in range(2)], folder


def test_workers_agree(workers):
    (chief, other), folder = workers
    for key in ("steps", "switches", "formats"):
        assert chief[key] == other[key], key
    np.testing.assert_equal(chief["history"], other["history"])  # NaN in stage 1
    one, two = (np.load(folder / f"worker-{i}.npz") for i in range(2))
    assert one.files == two.files and len(one.files) > 20
    for name in one.files:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_workers_switch_by_the_metric_of_the_chief(workers):
    (chief, _), _ = workers
    assert chief["switches"] == [[False, False]] * 4 + [[True, True]] * 2
    assert 0 < chief["history"]["conv_1_saturation"][2] < 1


def test_workers_calibrate_on_the_data_of_all(workers):
    from network import build, data

    from larq_clip import models

    together = np.concatenate([data(24, seed=0)[0], data(16, seed=1)[0]])
    model = models.clip_model(build(), bits=5, step="auto", calibration_data=together)
    (chief, _), _ = workers
    assert chief["steps"] == {name: clip.step for name, clip in models.accumulator_clips(model).items()}
    assert {"norm_1_int8", "norm_2", "dense"} <= set(chief["formats"])


def test_a_failure_of_one_worker_ends_the_others(workers):
    (chief, other), _ = workers
    assert other["failure"].startswith("ValueError: calibration_data is empty")
    assert chief["failure"].startswith("RuntimeError: calibration failed on worker [1]")


def test_the_chief_alone_writes_files(workers):
    _, folder = workers
    assert [path.name for path in folder.glob("*.csv")] == ["saturation-0.csv"]


def test_infinite_calibration_data_is_refused():
    from network import build, data

    from larq_clip import models
    from larq_clip._keras import tf

    dataset = tf.data.Dataset.from_tensor_slices(data(16)).batch(8)
    with pytest.raises(ValueError, match="calibration_data is an infinite dataset.*leave out repeat"):
        models.clip_model(build(), step="auto", calibration_data=dataset.repeat())
    model = models.clip_model(build(), step="auto", calibration_data=dataset.repeat().take(2))
    assert len(models.accumulator_clips(model)) == 2


def test_copies_keep_synchronized_batch_norms():
    from network import build

    from larq_clip import layers, models

    norm = models.clip_model(build()).get_layer("norm_1")
    assert norm.synchronized
    fixed = layers.FixedPointBatchNormalization(synchronized=True)
    assert layers.FixedPointBatchNormalization.from_config(fixed.get_config()).synchronized
