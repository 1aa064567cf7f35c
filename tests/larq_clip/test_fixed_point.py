"""The fixed-point reference against rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from larq_clip import arithmetic
from larq_clip import fixed_point as fp

finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)
small = settings(max_examples=60, deadline=None)


def half_up(x: Fraction) -> int:
    return floor(x + Fraction(1, 2))


def saturated(x: int, bits: int) -> int:
    limit = 2 ** (bits - 1) - 1
    return max(-limit, min(limit, x))


def batch_norms(channels: int = 3):
    def make(gamma, beta, mean, variance):
        return fp.BatchNorm(gamma, beta, mean, variance, 1e-3)

    def array(low, high):
        return hnp.arrays(np.float32, channels, elements=st.floats(low, high, width=32))

    return st.builds(make, array(-8, 8), array(-64, 64), array(-256, 256), array(0, 2**14))


# ---- Rounding -------------------------------------------------------------------------------------------------------


@small
@given(finite)
def test_round_half_up(x):
    assert fp.round_half_up(x) == half_up(Fraction(x))


def test_round_half_up_where_adding_a_half_would_round():
    assert fp.round_half_up([0.49999999999999994, -0.5, 0.5, 2**52 + 1.0]).tolist() == [0, 0, 1, 2**52 + 1]


@small
@given(st.integers(-(2**40), 2**40), st.integers(-10, 30))
def test_shift_half_up(v, shift):
    assert fp.shift_half_up(v, shift) == half_up(Fraction(v) / Fraction(2) ** shift)


@pytest.mark.parametrize(
    "x, e", [(1.0, 0), (1.0000001, 1), (0.5, -1), (0.6, 0), (128.0, 7), (129.0, 8), (2.0**-30, -30)]
)
def test_ceil_log2(x, e):
    assert fp.ceil_log2(x) == e


# ---- Formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "largest, bits", [(0, 0), (0.3, 0), (1, 0), (1.01, 1), (2, 1), (100, 7), (2**15, 15), (2**20, 15)]
)
def test_range_bits_and_fraction_bits(largest, bits):
    assert fp.range_bits(largest) == bits
    assert fp.fraction_bits(largest) == 15 - bits


@pytest.mark.parametrize("largest", [-1, np.inf, np.nan])
def test_ranges_must_be_finite(largest):
    with pytest.raises(ValueError, match="accepted are finite numbers"):
        fp.range_bits(largest)
    with pytest.raises(ValueError, match="not finite"):
        fp.storage_fraction_bits([largest])
    with pytest.raises(ValueError, match="not finite"):
        fp.kernel_steps([largest])


def test_storage_fraction_bits():
    assert fp.storage_fraction_bits([0, 1, 1.5, 127, 128, 129, 0.01, 1e-30]).tolist() == [7, 7, 6, 0, 0, -1, 13, 24]
    assert fp.storage_fraction_bits([1, 1000.0], 16).tolist() == [15, 5]


@pytest.mark.parametrize("given", [1.5, [], [[1]], 25, [-25, 0], "7", True])
def test_formats_must_be_small_integers(given):
    with pytest.raises(ValueError, match="fraction_bits is"):
        fp.as_fraction_bits(given)


def test_formats_are_plain_python():
    assert fp.as_fraction_bits(np.int64(3)) == 3
    assert fp.as_fraction_bits(np.array([3, -4])) == [3, -4]


# ---- Batch norm -----------------------------------------------------------------------------------------------------


@small
@given(batch_norms())
def test_folded_batch_norm(norm):
    s, t = fp.fold(norm)
    chosen = fp.choose_format(norm)
    assert chosen == (fp.fraction_bits(max(np.abs(s).max(), np.abs(t).max())), None)
    quantized = fp.quantize_batch_norm(norm, chosen)
    scale = 2**chosen.fraction_bits
    assert quantized.multiplier.tolist() == [saturated(half_up(Fraction(v) * scale), 16) for v in s]
    assert quantized.offset.tolist() == [saturated(half_up(Fraction(v) * scale), 32) for v in t]
    assert quantized.multiplier.dtype == np.int16 and quantized.offset.dtype == np.int32


@small
@given(batch_norms())
def test_paper_batch_norm(norm):
    chosen = fp.choose_format(norm, "paper")
    own = chosen.variable_fraction_bits
    sigma = np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
    assert own == fp.fraction_bits(max(np.abs(v).max() for v in (norm.gamma, norm.beta, norm.mean, sigma)))
    quantized = fp.quantize_batch_norm(norm, chosen)
    for c in range(3):
        gamma, beta, mean, deviation = (
            Fraction(saturated(half_up(Fraction(float(v[c])) * 2**own), 16), 2**own)
            for v in (norm.gamma, norm.beta, norm.mean, sigma)
        )
        s = gamma / max(deviation, Fraction(1, 2**own))
        t = beta - mean * s
        scale = 2**chosen.fraction_bits
        assert quantized.multiplier[c] == saturated(half_up(s * scale), 16)
        assert quantized.offset[c] == saturated(half_up(t * scale), 32)


def test_a_quantized_batch_norm_is_close():
    rng = np.random.default_rng(0)
    norm = fp.BatchNorm(
        rng.uniform(0.5, 2, 16), rng.normal(size=16), rng.normal(0, 20, 16), rng.uniform(400, 900, 16), 1e-3
    )
    s, t = fp.fold(norm)
    q = rng.integers(-127, 128, (50, 16))
    for variables, tolerance in (("folded", 128 * 2.0**-14), ("paper", 0.1)):
        chosen = fp.choose_format(norm, variables)
        y = fp.values(*fp.affine(q, fp.quantize_batch_norm(norm, chosen), -1))
        assert np.abs(y - (s * 2 * q + t)).max() <= 2 * tolerance


@small
@given(batch_norms())
def test_by_channel_small_multipliers_keep_15_bits(norm):
    s, t = fp.fold(norm)
    chosen = fp.choose_format(norm, granularity="channel")
    quantized = fp.quantize_batch_norm(norm, chosen)
    for c, bits in enumerate(chosen.fraction_bits):
        assert quantized.multiplier[c] == saturated(half_up(Fraction(s[c]) * Fraction(2) ** bits), 16)
        assert quantized.offset[c] == half_up(Fraction(t[c]) * Fraction(2) ** bits)
        if abs(s[c]) > 2.0**-8 and abs(t[c]) < 2**8:
            assert abs(quantized.multiplier[c] * 2.0**-bits / s[c] - 1) <= 2.0**-14


def test_formats_by_channel_are_for_folded_variables():
    one = np.ones(1)
    with pytest.raises(ValueError, match="granularity is 'channel' with variables='paper'"):
        fp.choose_format(fp.BatchNorm(one, one, one, one, 0), "paper", "channel")
    with pytest.raises(ValueError, match="accepted are finite"):
        fp.choose_format(fp.BatchNorm(one * np.nan, one, one, one, 0), granularity="channel")


def test_unknown_variables():
    one = np.ones(1)
    with pytest.raises(ValueError, match="variables is 'all'; accepted are 'folded' and 'paper'"):
        fp.choose_format(fp.BatchNorm(one, one, one, one, 0), "all")


@small
@given(st.integers(-127, 127), st.integers(-32767, 32767), st.integers(-(2**24), 2**24), st.integers(-6, 12))
def test_affine(q, s, t, bits):
    norm = fp.FixedPointAffine(np.array([s], np.int16), np.array([t], np.int32), 11)
    y, fraction_bits = fp.affine(np.array([q]), norm, bits)
    expected = Fraction(s, 2**11) * q / Fraction(2) ** bits + Fraction(t, 2**11)
    assert Fraction(int(y[0])) / 2 ** int(fraction_bits) == expected
    assert fp.values(y, fraction_bits)[0] == float(expected)


# ---- Stored tensors -------------------------------------------------------------------------------------------------


@small
@given(st.integers(-(2**31), 2**31), st.integers(-4, 20), st.integers(-8, 16), st.sampled_from([8, 16]))
def test_store(v, v_bits, bits, width):
    exact = Fraction(v) / Fraction(2) ** v_bits
    expected = saturated(half_up(exact * Fraction(2) ** bits), width)
    assert fp.store(np.array(v), v_bits, bits, width) == expected
    assert fp.store_reals(float(exact), bits, width) == expected


def test_the_exact_sum_is_rounded_once():
    a, b = (np.array([1, 1, -1]), 2), (np.array([1, 3, -1]), np.array([2, 3, 2]))
    total, bits = fp.add(a, b)
    assert fp.values(total, bits).tolist() == [0.5, 0.625, -0.5]
    assert fp.store(total, bits, 0).tolist() == [1, 1, 0]  # rounding each term first would give 0 + 0


# ---- Layers that are not binary -------------------------------------------------------------------------------------


@small
@given(st.floats(1e-20, 1e20))
def test_kernel_steps(largest):
    step = float(fp.kernel_steps([largest])[0])
    assert Fraction(step) * 127 >= Fraction(largest) * (1 - Fraction(1, 2**50))
    assert step * 127 <= largest * (1 + 2**-7 + 2**-20)
    mantissa, bits = fp.split_steps([step])
    assert 0 < mantissa[0] < 256 and mantissa[0] % 2 == 1
    assert Fraction(int(mantissa[0])) / Fraction(2) ** int(bits[0]) == Fraction(step)


@pytest.mark.parametrize("steps", [[0.0], [-1.0], [257.0], [0.1], [np.nan]])
def test_steps_that_no_multiplier_of_8_bits_says(steps):
    with pytest.raises(ValueError, match="steps of a kernel must be"):
        fp.split_steps(steps)


def test_int8_convolution(rng):
    x = rng.integers(-127, 128, (2, 5, 6, 4))
    w = rng.normal(size=(6, 3, 3, 2)).astype(np.float32)
    bias = rng.normal(size=6)
    steps = fp.kernel_steps(np.abs(w).max((1, 2, 3)))
    kernel = fp.quantize_kernel(w, steps[:, None, None, None])
    axes = (arithmetic.window_axis(5, 3, 2, 1, "same"), arithmetic.window_axis(6, 3, 1, 1, "valid"))
    integers = fp.quantize_bias(bias, steps)
    y, bits = fp.int8_conv2d(x, kernel, integers, axes, groups=2)
    assert np.abs(kernel.weights * steps[:, None, None, None] - w).max() <= steps.max() / 2
    for place in np.ndindex(y.shape):
        n, row, column, c = place
        total = int(integers[c])
        for i in axes[0].taps(row):
            for j in axes[1].taps(column):
                source = x[n, row * 2 - axes[0].pad_before + i, column + j, 2 * (c // 3) : 2 * (c // 3) + 2]
                total += int(np.dot(source, kernel.weights[c, i, j].astype(int)))
        assert Fraction(int(y[place])) / Fraction(2) ** int(bits[c]) == total * Fraction(steps[c])


def test_int32_accumulators_do_not_wrap():
    axes = (arithmetic.window_axis(1, 1), arithmetic.window_axis(1, 1))
    kernel = fp.quantize_kernel(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)) / 128)
    with pytest.raises(OverflowError, match="does not fit int32"):
        fp.int8_conv2d(np.full((1, 1, 1, 1), 127), kernel, np.array([2**31 - 1]), axes)
