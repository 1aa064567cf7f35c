"""Larq's quantized scope ends as it began where a layer raises inside it: else nothing learns any more."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from larq_clip import layers
from larq_clip._identify import _numpy
from larq_clip._keras import keras, lq
from larq_clip._scope import quantized_scope
from larq_clip.cli import zoo
from larq_clip.cli.load import load_keras_model
from larq_clip.converter import convert_keras_model, verify_keras_model
from larq_clip.errors import ConversionError
from larq_clip.models import clip_model, quantize_model

X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
ARMED: list[bool] = []


@keras.utils.register_keras_serializable("tests of scope")
def fuse(x):
    """The identity, but an error while armed."""
    if ARMED:
        raise ValueError("the fuse is blown")
    return keras.activations.linear(x)


fuse.__name__ = "linear"  # for quantize_model, which refuses others


@pytest.fixture
def armed() -> Iterator[None]:
    ARMED.append(True)
    yield
    ARMED.clear()


def larq_model() -> keras.Model:
    image = keras.Input((6,))
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    x = lq.layers.QuantDense(5, activation="relu", name="one", **binary)(image)
    return keras.Model(image, keras.layers.BatchNormalization()(lq.layers.QuantDense(3, name="two", **binary)(x)))


def break_layers(model: keras.Model) -> keras.Model:
    """The model, whose layers raise within Larq's scope from now on."""
    for layer in model.layers:
        if isinstance(layer, lq.layers.QuantDense):
            layer.activation = fuse
    return model


def test_larqs_own_scope_is_left_on(armed):
    """Why there is another one; should this fail, Larq has mended it."""
    model = break_layers(larq_model())
    with quantized_scope():
        with pytest.raises(ValueError, match="the fuse is blown"):
            model(X)
        assert lq.context.should_quantize()
    assert not lq.context.should_quantize()


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [None, False, True])
def test_the_scope_ends_as_it_began(outer, inner):
    with quantized_scope(outer):
        with quantized_scope(inner):
            assert lq.context.should_quantize() == (outer if inner is None else inner)
        assert lq.context.should_quantize() == outer
        with pytest.raises(ValueError), quantized_scope(inner):
            raise ValueError
        assert lq.context.should_quantize() == outer
    assert not lq.context.should_quantize()


def test_clipped_layers_raise_outside_of_it(armed):
    """In training too, whatever calls them."""
    layer = layers.QuantDense(3, kernel_quantizer="ste_sign", accumulator_quantizer="accumulator_clip", activation=fuse)
    with pytest.raises(ValueError, match="the fuse is blown"):
        layer(X)
    assert not lq.context.should_quantize()


def test_code_that_is_probed(armed):
    assert _numpy(break_layers(larq_model()), X) is None
    assert not lq.context.should_quantize()


def clip_by_data(model: keras.Model) -> None:
    clip_model(model, step="auto", calibration_data=X)


@pytest.mark.parametrize("work", [clip_model, clip_by_data], ids=["clip_model", "calibration"])
def test_models_that_cannot_be_copied(work, armed):
    with pytest.raises(ValueError, match="the fuse is blown"):
        work(break_layers(larq_model()))
    assert not lq.context.should_quantize()


def test_models_that_cannot_be_quantized():
    clipped = clip_model(larq_model())
    clipped(X, training=True)
    ARMED.append(True)
    try:
        with pytest.raises(ValueError, match="the fuse is blown"):
            quantize_model(break_layers(clipped), X)
    finally:
        ARMED.clear()
    assert not lq.context.should_quantize()


def test_models_that_cannot_be_verified():
    model = larq_model()
    data = convert_keras_model(model)
    break_layers(model)
    ARMED.append(True)
    try:
        with pytest.raises((ValueError, ConversionError), match="the fuse is blown|its activation is"):
            verify_keras_model(model, data, X)
    finally:
        ARMED.clear()
    assert not lq.context.should_quantize()


def test_files_that_cannot_be_loaded(tmp_path):
    break_layers(larq_model()).save(tmp_path / "model.keras")
    ARMED.append(True)
    try:
        with pytest.raises(
            ConversionError, match="cannot be loaded as a Keras model: .*Exception encountered when calling"
        ):
            load_keras_model(tmp_path / "model.keras")
    finally:
        ARMED.clear()
    assert not lq.context.should_quantize()


def test_models_of_the_zoo_that_cannot_be_built(armed):
    pytest.importorskip("larq_zoo", reason="larq-zoo is not installed: pip install 'larq-clip[zoo]'")

    def make(**_):
        return break_layers(larq_model())(X)

    with pytest.raises(
        ConversionError, match="larq-zoo cannot build Net: .*Exception encountered when calling layer 'one'"
    ):
        zoo._built("Net", make, None, None)
    assert not lq.context.should_quantize()
