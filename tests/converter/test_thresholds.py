"""Thresholds against the Keras layers themselves: the sign of every value of the domain, for difficult parameters.

The fused op's bits are compared with ``model.predict`` on one-pixel images that hold every accumulator value.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from converter_support import Sketch

from larq_clip import arithmetic
from larq_clip.converter import ir
from larq_clip.converter.passes.fuse_thresholds import fuse_thresholds
from larq_clip.errors import ConversionError

# One channel each: gamma, beta, mean, variance.
CHANNELS = np.array(
    [
        (1, 0, 0, 1),  # the sign itself
        (-1, 0, 0, 1),
        (0, 0, 3, 1),  # gamma 0: the sign of beta, +1 at 0
        (0, 0.5, 3, 1),
        (0, -0.5, 3, 1),
        (-0.0, -0.0, 3, 1),
        (1, 0, 7, 2),  # a tie at an integer mean: +1
        (-1, 0, 7, 2),
        (2, 0, -13, 30),
        (-2, 0, -13, 30),
        (1, 0, 6.5, 1),  # between integers
        (-1, 0, 6.5, 1),
        (1, 1e-30, 7, 1),  # tiny distances from a tie
        (1, -1e-30, 7, 1),
        (-1, 1e-30, 7, 1),
        (-1, -1e-30, 7, 1),
        (1, 1e-7, 5, 1),
        (1, -1e-7, 5, 1),
        (1, 0, 1e30, 1),  # huge thresholds
        (1, 0, -1e30, 1),
        (-1, 0, 1e30, 1),
        (-1, 0, -1e30, 1),
        (1e-30, 1, 0, 1),
        (1e-30, -1, 0, 1),
        (1, 0.3, 0.001, 1e12),
        (-1, -0.3, -0.001, 1e12),
        (1, 0, 3, 0),  # only epsilon is left
        (-3, 1.7, 2.3, 1e-9),
        (1, -72 / np.sqrt(1 + 1e-3), 0, 1),  # a tie at 72, where rounding decides
        (-1, 72 / np.sqrt(1 + 1e-3), 0, 1),
        (0.37, -1.11, 4, 37.5),
        (-0.37, 1.11, 4, 37.5),
    ],
    np.float64,
).astype(np.float32)


def batch_norm(shape, epsilon=1e-3, values=CHANNELS, **arguments):
    """A model that is one batch norm, and its layer."""
    from larq_clip._keras import keras

    layer = keras.layers.BatchNormalization(epsilon=epsilon, **arguments)
    model = keras.Sequential([keras.Input(shape), layer])
    gamma, beta, mean, variance = values.T
    kept = [gamma] * layer.scale + [beta] * layer.center + [mean, variance]
    layer.set_weights(kept)
    return model, layer


def imported_norm(model) -> ir.BatchNorm:
    from larq_clip.converter import keras_importer

    return keras_importer.import_model(model).ops[-1]


def sketch_with(norm: ir.BatchNorm, shape, clip) -> ir.Graph:
    """Sign, a binary layer of K = 200, a clip, the batch norm, a sign and another binary layer."""
    sketch = Sketch((*shape, 200)).sign("s").binary_conv("c", len(CHANNELS), kernel=1)
    if clip is not None:
        sketch.clip("q", **clip)
    read = sketch.last
    sketch.add(ir.BatchNorm, "n", **{f.name: getattr(norm, f.name) for f in dataclasses.fields(norm)[3:]})
    graph = sketch.sign("t").binary_conv("d", 2, kernel=1).graph()
    assert graph.producer("n").input == read
    return graph


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 1.5])
@pytest.mark.parametrize("shape", [(1, 1), ()], ids=["image", "vector"])
@pytest.mark.parametrize("clip", [None, {"step_log2": 0}, {"step_log2": 1}, {"step_log2": 3}])
def test_every_value_of_the_domain_has_the_sign_of_keras(shape, clip, epsilon):
    model, _ = batch_norm((*shape, len(CHANNELS)), epsilon)
    fused = fuse_thresholds(sketch_with(imported_norm(model), shape, clip)).ops[1]
    assert fused.epilogue is ir.Epilogue.THRESHOLD

    accumulators = np.arange(-200, 201)
    v, step = accumulators, 1
    if clip is not None:
        step = 2.0 ** clip["step_log2"]
        v = arithmetic.clip_accumulator(accumulators, 8, step)
        assert fused.thresholds.dtype == np.int8
    numbers = np.repeat((v * step).astype(np.float32)[:, None], len(CHANNELS), axis=1)
    outputs = model.predict(numbers.reshape(-1, *shape, len(CHANNELS)), verbose=0).reshape(numbers.shape)
    expected = arithmetic.sign_bits(outputs)

    invert = np.zeros(len(CHANNELS), np.uint8) if fused.invert is None else fused.invert
    bits = arithmetic.threshold_bits(
        np.repeat(v[:, None], len(CHANNELS), axis=1), arithmetic.Thresholds(fused.thresholds, invert)
    )
    np.testing.assert_array_equal(bits, expected)
    assert invert.any() and not invert.all()


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("shape", [(2, 3), ()], ids=["image", "vector"])
def test_float_thresholds_are_exact_to_the_last_bit(shape, scale, center):
    """Around each threshold, the next floats up and down have the signs of Keras."""
    values = CHANNELS[np.abs(CHANNELS[:, 2]) < 1e6]
    model, _ = batch_norm((*shape, len(values)), values=values, scale=scale, center=center)
    sketch = Sketch((*shape, 3)).conv("c", len(values), kernel=1)
    norm = imported_norm(model)
    sketch.add(ir.BatchNorm, "n", **{f.name: getattr(norm, f.name) for f in dataclasses.fields(norm)[3:]})
    packed = fuse_thresholds(sketch.sign("t").binary_conv("d", 2, kernel=1).graph()).ops[1]

    order = arithmetic.float_order(np.where(np.isinf(packed.thresholds), 0, packed.thresholds))
    near = arithmetic.float_from_order(order + np.arange(-40, 41)[:, None])
    far = np.repeat(np.array([-1e30, -1e3, -1, -0.0, 0.0, 1, 1e3, 1e30], np.float32)[:, None], len(values), axis=1)
    x = np.concatenate([near, far])
    images = np.broadcast_to(x.reshape(-1, *(1,) * len(shape), len(values)), (len(x), *shape, len(values)))
    outputs = model.predict(images, verbose=0).reshape(len(x), -1, len(values))
    invert = np.zeros(len(values), np.uint8) if packed.invert is None else packed.invert
    bits = arithmetic.float_threshold_bits(x, arithmetic.FloatThresholds(packed.thresholds, invert))
    for pixel in range(outputs.shape[1]):
        np.testing.assert_array_equal(bits, arithmetic.sign_bits(outputs[:, pixel]))


@pytest.mark.parametrize("shape", [(5, 4), ()], ids=["image", "vector"])
def test_batch_norm_evaluates_as_predict(shape):
    """The imported node's callable equals predict bit for bit, for any batch, and one pixel at a time."""
    model, _ = batch_norm((*shape, len(CHANNELS)))
    norm = imported_norm(model)
    x = np.random.default_rng(0).normal(size=(7, *shape, len(CHANNELS))).astype(np.float32) * 50
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(norm.keras(x), expected)
    pixels = x.reshape(-1, *(1,) * len(shape), len(CHANNELS))
    np.testing.assert_array_equal(norm.keras(pixels).reshape(x.shape), expected)
    for i in range(3):
        np.testing.assert_array_equal(norm.keras(pixels[i : i + 1]), pixels_of(expected, shape)[i : i + 1])


def pixels_of(x, shape):
    return x.reshape(-1, *(1,) * len(shape), x.shape[-1])


def test_numpy_formula_is_that_of_keras_up_to_rounding():
    for shape in ((2, 2), ()):
        values = CHANNELS[(np.abs(CHANNELS[:, 2]) < 1e6) & (CHANNELS[:, 3] > 1e-6)]
        model, _ = batch_norm((*shape, len(values)), values=values)
        norm = dataclasses.replace(imported_norm(model), keras=None)
        x = np.random.default_rng(0).normal(size=(5, *shape, len(values))).astype(np.float32) * 50
        tensor = ir.Tensor("", ir.DType.FLOAT32, (*shape, len(values)))
        # Four roundings of numbers below about 50 * 3: 2^-24 each, relative to the largest.
        np.testing.assert_allclose(norm.compute(x, tensor, tensor), model.predict(x, verbose=0), rtol=1e-5, atol=1e-4)


def test_a_function_whose_sign_changes_twice_is_refused():
    sketch = Sketch((3, 3, 64)).sign("conv:input").binary_conv("conv", 8).clip("conv:clipped").norm("bn").sign("bits")
    graph = sketch.graph()
    norm = graph.producer("bn")
    there_and_back = dataclasses.replace(norm, keras=lambda x: np.abs(x) - np.float32(20))
    ops = [there_and_back if op is norm else op for op in graph.ops]
    broken = ir.Graph.build(graph.name, graph.tensors.values(), ops, graph.inputs, graph.outputs)
    with pytest.raises(ConversionError, match="'bn' before the sign 'bits' are not monotone"):
        fuse_thresholds(broken)


@pytest.mark.parametrize(
    "lowest, highest", [(-127, 127), (-32767, 32767), (-(1 << 62), 1 << 62), (-3, 5), (0, 0), (0, 1)]
)
def test_bisection_finds_every_flip_inside_the_domain(lowest, highest):
    rng = np.random.default_rng(0)
    count = 100
    wanted = arithmetic.Thresholds(
        rng.integers(max(lowest - 2, -(1 << 62)), highest, count, endpoint=True),
        rng.integers(0, 2, count).astype(np.uint8),
    )
    calls = []

    def sign_of(v):
        assert v.shape[1] == count and v.min() >= lowest and v.max() <= highest
        calls.append(len(v))
        return arithmetic.threshold_bits(v, wanted)

    found = arithmetic.find_thresholds(lowest, highest, count, sign_of)
    near = np.concatenate([wanted.threshold - 1, wanted.threshold, wanted.threshold + 1, [lowest, highest]])
    v = np.repeat(np.unique(np.clip(near, lowest, highest))[:, None], count, axis=1)
    np.testing.assert_array_equal(arithmetic.threshold_bits(v, found), arithmetic.threshold_bits(v, wanted))
    # The ends, and rounds that each leave a 16th; the last ones, where 16 is more than there is, one more.
    assert len(calls) <= 3 + np.log(highest - lowest + 1) / np.log(arithmetic.PARTS) and max(calls) <= 15
