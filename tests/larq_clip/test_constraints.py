"""Constraints: the fixed-point grid, exact and shared with the quantizer; strings, configs, saved models."""

from __future__ import annotations

import warnings

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import larq_clip
from larq_clip import arithmetic, constraints, quantizers
from larq_clip._keras import keras, lq, tf

floats = st.floats(-1000, 1000, width=32) | st.integers(-4000, 4000).map(lambda n: n / 8)


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(
    x=arrays.arrays(np.float32, st.integers(1, 20), elements=floats),
    bits=st.integers(2, 16),
    fraction_bits=st.integers(0, 24),
)
def test_is_the_exact_grid_of_arithmetic_and_quantizer(x, bits, fraction_bits):
    found = constraints.FixedPoint(bits, fraction_bits)(tf.constant(x)).numpy()
    scaled = np.floor(x.astype(np.float64) * 2.0**fraction_bits + 0.5)  # exact: 24 + 24 + 1 bits < 53
    limit = arithmetic.clip_limit(bits)
    np.testing.assert_array_equal(found, np.clip(scaled, -limit, limit) / 2.0**fraction_bits)
    np.testing.assert_array_equal(found, quantizers.FixedPoint(bits, fraction_bits)(tf.constant(x)).numpy())
    np.testing.assert_array_equal(found, constraints.FixedPoint(bits, fraction_bits)(found).numpy())
    assert np.abs(found).max() <= constraints.FixedPoint(bits, fraction_bits).largest


def test_ties_go_up():
    constraint = constraints.FixedPoint(8, 1)
    x = np.array([0.25, -0.25, 0.75, -0.75, np.nextafter(np.float32(0.25), np.float32(0)), 1e9, -1e9], np.float32)
    np.testing.assert_array_equal(constraint(x), [0.5, 0, 1, -0.5, 0, 63.5, -63.5])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_leaves_the_variable_on_the_grid(jit_compile):
    model = keras.Sequential(
        [
            keras.layers.InputLayer((5,)),
            keras.layers.BatchNormalization(beta_constraint="fixed_point_constraint"),
            keras.layers.Dense(3, bias_constraint=constraints.FixedPoint(8, 4)),
        ]
    )
    model.compile(keras.optimizers.SGD(0.3), "mse", jit_compile=jit_compile)
    rng = np.random.default_rng(0)
    model.fit(rng.standard_normal((16, 5)), rng.standard_normal((16, 3)), batch_size=4, verbose=0)
    for variable, scale in ((model.layers[0].beta, 2**7), (model.layers[1].bias, 2**4)):
        scaled = variable.numpy() * scale
        np.testing.assert_array_equal(scaled, np.round(scaled))
        assert np.any(scaled != 0)
    kernel = model.layers[1].kernel.numpy() * 2**7
    assert np.any(kernel != np.round(kernel))


def test_strings_and_configs():
    constraint = keras.constraints.get("fixed_point_constraint")
    assert type(constraint) is constraints.FixedPoint is larq_clip.constraints.FixedPoint
    assert constraint.get_config() == {"bits": 8, "fraction_bits": 7}
    constraint = constraints.FixedPoint(12, 3)
    again = keras.constraints.deserialize(keras.constraints.serialize(constraint))
    assert type(again) is constraints.FixedPoint and again.get_config() == {"bits": 12, "fraction_bits": 3}
    assert type(lq.quantizers.get("fixed_point")) is quantizers.FixedPoint  # each has its own name
    assert constraints.FixedPoint.from_config({"bits": 4, "fraction_bits": 2}).bits == 4


@pytest.mark.parametrize("suffix", [".h5", ".keras", ""])
def test_saved_models_keep_it_beside_the_quantizer(tmp_path, suffix):
    layer = lq.layers.QuantDense(
        3,
        kernel_quantizer=quantizers.FixedPoint(6, 5),
        kernel_constraint=constraints.FixedPoint(12, 9),
        bias_constraint="fixed_point_constraint",
        name="dense",
    )
    model = keras.Sequential([keras.layers.InputLayer((4,)), layer])
    model.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are saving your model as an HDF5", UserWarning)
        model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}").get_layer("dense")
    assert type(loaded.kernel_constraint) is type(loaded.bias_constraint) is constraints.FixedPoint
    assert loaded.kernel_constraint.get_config() == {"bits": 12, "fraction_bits": 9}
    assert type(loaded.kernel_quantizer) is quantizers.FixedPoint and loaded.kernel_quantizer.bits == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 1}, "bits is 1; accepted are the integers from 2 to 16"),
        ({"bits": True}, "bits is True"),
        ({"fraction_bits": 25}, "fraction_bits is 25; accepted are the integers from 0 to 24"),
        ({"fraction_bits": -1}, "fraction_bits is -1"),
        ({"fraction_bits": 1.5}, "fraction_bits is 1.5"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        constraints.FixedPoint(**arguments)
