"""Which layers of a model are binary."""

from __future__ import annotations

import numpy as np
import pytest
from clip_support import sign, single

from larq_clip import layers
from larq_clip._keras import lq, tf
from larq_clip.models import accumulator_clips, binary_layers, clip_model


def hand_written_sign(x):
    return tf.where(x < 0, -1.0, 1.0)


@pytest.mark.parametrize("quantizer", ["ste_sign", "approx_sign", "swish_sign", hand_written_sign])
def test_signs_are_binary(quantizer):
    layer = lq.layers.QuantConv2D(3, 3, input_quantizer=quantizer, kernel_quantizer=quantizer, name="conv")
    model = single(layer)
    assert binary_layers(model) == [layer]
    assert list(accumulator_clips(clip_model(model))) == ["conv"]


def heaviside_of_large(x):
    return tf.where(tf.abs(x) > 1e5, tf.zeros_like(x), tf.where(x < 0, -1.0, 1.0))


def scaled_sign_of_signs(x):
    return 0.5 * tf.where(x < 0, -1.0, 1.0) + tf.cast(x > 0.3, tf.float32)


@pytest.mark.parametrize(
    "quantizer",
    [
        "ste_tern",
        scaled_sign_of_signs,
        "fixed_point",
        None,
        tf.sign,  # 0 at 0
        heaviside_of_large,
        lq.quantizers.NoOp(precision=1),
        lq.quantizers.SteTern(threshold_value=1e-5),
        lq.quantizers.DoReFa(k_bit=4),
    ],
)
@pytest.mark.parametrize("place", ["input_quantizer", "kernel_quantizer"])
def test_what_produces_other_values_is_not_binary(quantizer, place):
    require_not_binary(quantizer, place)


@pytest.mark.parametrize("quantizer", ["ste_heaviside", "dorefa_quantizer", lq.quantizers.DoReFa(k_bit=1)])
def test_kernels_of_levels_are_not_binary(quantizer):
    require_not_binary(quantizer, "kernel_quantizer")


def upside_down(x):
    return 1 - lq.quantizers.DoReFa(2)(x)


@pytest.mark.parametrize("quantizer", [upside_down, lambda x: lq.quantizers.DoReFa(2)(x) / 2])
def test_inputs_that_are_no_levels_are_not_binary(quantizer):
    require_not_binary(quantizer, "input_quantizer")


def require_not_binary(quantizer, place):
    for layer in (lq.layers.QuantConv2D, layers.QuantDense):
        size = (4, 3) if layer is lq.layers.QuantConv2D else (4,)
        model = single(layer(*size, **{**sign(), place: quantizer}))
        assert binary_layers(model) == []
        with pytest.raises(ValueError, match="model 'single' has no binary layer"):
            clip_model(model)


def test_inputs_with_a_scale_are_not_binary():
    layer = lq.layers.QuantConv2D(4, 3, **{**sign(), "input_quantizer": "magnitude_aware_sign"}, name="conv")
    with pytest.raises(ValueError, match=r"'conv' \(MagnitudeAwareSign and .*\)"):
        clip_model(single(layer))


def test_one_bit_dorefa_weights_are_binary():
    weights = lq.quantizers.DoReFa(k_bit=1, mode="weights")
    assert binary_layers(single(lq.layers.QuantDense(4, input_quantizer="ste_sign", kernel_quantizer=weights)))


def test_the_layers_own_kernel_counts():
    def sign_but_for_seven(x):
        return tf.where(x == 7, tf.zeros_like(x), tf.where(x < 0, -1.0, 1.0))

    layer = lq.layers.QuantDense(4, input_quantizer="ste_sign", kernel_quantizer=sign_but_for_seven)
    model = single(layer)
    assert binary_layers(model) == [layer]
    layer.set_weights([np.full_like(w, 7) for w in layer.get_weights()])
    assert binary_layers(model) == []


def test_small_kernels_are_probed_completely():
    layer = lq.layers.QuantConv2D(1, 1, input_quantizer="ste_sign", kernel_quantizer="ste_tern")
    model = single(layer, (2, 2, 1))
    layer.set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    assert binary_layers(model) == []


def test_asking_leaves_metrics_alone():
    with lq.context.metrics_scope(["flip_ratio"]):
        layer = lq.layers.QuantDense(4, input_quantizer="ste_sign", kernel_quantizer="ste_sign")
    model = single(layer)
    before = [w.numpy().tolist() for m in layer.metrics + model.metrics for w in m.variables]
    assert binary_layers(model) == [layer]
    assert [w.numpy().tolist() for m in layer.metrics + model.metrics for w in m.variables] == before
