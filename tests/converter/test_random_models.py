"""Random Keras models: each layer of the file computes on the C runtime what Keras computes.

50 of them, or as many as LARQ_CLIP_RANDOM_MODELS says.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras_support import images, randomize
from random_models import random_model

from larq_clip.converter import convert_keras_model, verify_keras_model

COUNT = int(os.environ.get("LARQ_CLIP_RANDOM_MODELS", "50"))


@settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck), derandomize=COUNT == 50)
@given(st.data())
def test_random_models_are_exact(data):
    model = random_model(data.draw)
    randomize(model, data.draw(st.integers(0, 99)))
    verify_keras_model(model, convert_keras_model(model), images(model, 2), constants=False).require()
