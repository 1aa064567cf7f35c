"""Random Keras models: each layer of the file computes on the C runtime what Keras computes.

50 of them, or as many as LARQ_CLIP_RANDOM_MODELS says; always the same ones, or those of LARQ_CLIP_RANDOM_SEED. With
LARQ_CLIP_RANDOM_RESULTS=FILE a model that is not exact does not end the test: all are counted and written there, as
`make random-models` wants them. Without it hypothesis looks for a smaller one.
"""

from __future__ import annotations

import collections
import json
import os
import time
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from keras_support import images, randomize
from random_keras_models import random_model

from larq_clip.converter import convert_keras_model, verify_keras_model

COUNT = int(os.environ.get("LARQ_CLIP_RANDOM_MODELS", "50"))
SEED = int(os.environ.get("LARQ_CLIP_RANDOM_SEED", "0"))
RESULTS = os.environ.get("LARQ_CLIP_RANDOM_RESULTS")


def test_random_models_are_exact():
    layers: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    models, start = 0, time.perf_counter()

    @seed(SEED)
    @settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def check(data):
        nonlocal models
        model = random_model(data.draw)
        randomize(model, data.draw(st.integers(0, 99)))
        models += 1
        layers.update(type(layer).__name__ for layer in model.layers)
        try:
            verify_keras_model(model, convert_keras_model(model), images(model, 2), constants=False).require()
        except Exception as error:
            if RESULTS is None:
                raise
            failures.append(f"{type(error).__name__}: {error}")

    check()
    quantized = sum(count for name, count in layers.items() if name.startswith("Quant"))
    assert models >= COUNT // 2 and quantized >= models // 2
    if RESULTS is not None:
        seconds = round(time.perf_counter() - start, 1)
        counted = {"models": models, "failures": failures, "seconds": seconds, "layers": dict(layers)}
        Path(RESULTS).write_text(json.dumps(counted, indent=2) + "\n")
    assert not failures
