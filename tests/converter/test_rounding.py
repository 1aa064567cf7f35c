"""How far float32 may be off: a bound that always holds, and one that hides no wrong weight."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from converter_support import Sketch
from hypothesis import given, settings
from hypothesis import strategies as st
from verify_support import as_if_trained, at, changed

from larq_clip import convert_keras_model, verify_keras_model
from larq_clip.converter import ir, reader, rounding

# ---- The bound ------------------------------------------------------------------------------------------------------


def in_another_order(x: np.ndarray, weights: np.ndarray, rng) -> np.ndarray:
    """A dense layer in float32, its products added one by one in a random order."""
    total = np.zeros((len(x), weights.shape[1]), np.float32)
    for channel in rng.permutation(x.shape[1]):
        total = total + x[:, channel, None] * weights[channel]
    return total


def test_the_bound_holds_for_any_order_and_is_not_much_larger():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(300, 9)).astype("f")
    graph = Sketch((300,)).conv("dense", 9, 1).graph()
    (op,) = graph.ops
    op = dataclasses.replace(op, weights=weights[None, None])
    graph = ir.Graph.build("g", graph.tensors.values(), [op], graph.inputs, graph.outputs)
    x = rng.normal(size=(20, 300)).astype("f")
    error = rounding.enclose(graph, "dense", {"x": x}).error
    results = np.stack([in_another_order(x, weights, rng) for _ in range(50)])
    spread = results.max(0) - results.min(0)
    assert np.all(spread > 0) and np.all(spread <= error)
    assert np.all(error <= 2.1 * 310 * 2.0**-24 * (np.abs(x) @ np.abs(weights)))


def test_a_sign_may_differ_only_within_the_bound():
    graph = Sketch((4, 4, 16)).conv("conv", 8).sign("bits").graph()
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 4, 4, 16)).astype("f")
    values, error = rounding.enclose(graph, "conv", {"x": x})
    bits = rounding.enclose(graph, "bits", {"x": x})
    assert np.all(bits.error[np.abs(values) > 2 * error] == 0)
    # A bias that takes one element to 0.
    place = (0, 1, 2, 5)
    conv, sign = graph.ops
    bias = np.zeros(8, "f")
    bias[5] = -values[place]
    graph = ir.Graph.build(
        "g", graph.tensors.values(), [dataclasses.replace(conv, bias=bias), sign], graph.inputs, graph.outputs
    )
    doubt = rounding.enclose(graph, "bits", {"x": x}).error
    assert doubt[place] == 2 and np.count_nonzero(doubt) < 9


def test_integers_have_no_bound():
    graph = (
        Sketch((6, 6, 8)).quantize("q", fraction_bits=(4,)).int8_conv("conv", 5).store("s", fraction_bits=(3,)).graph()
    )
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 8)).astype("f")
    for name in ("q", "conv", "s"):
        assert not rounding.enclose(graph, name, {"x": x}).error.any()


def test_bounds_go_through_batch_norm_pool_and_softmax():
    """Inputs off by a unit in the last place are as one more rounding of each product."""
    sketch = (
        Sketch((6, 6, 8)).conv("conv", 5).norm("norm").relu("relu").pool("pool", 2, ir.AveragePool2D).flatten("flat")
    )
    graph = sketch.conv("dense", 7, 1).add(ir.Softmax, "softmax").graph()
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 8)).astype("f")
    moved = np.nextafter(x, np.float32(np.inf))
    arrays, others = ir.evaluate(graph, {"x": x}), ir.evaluate(graph, {"x": moved})
    for name in ("conv", "norm", "relu", "pool", "dense", "softmax"):
        error = rounding.enclose(graph, name, {"x": x}).error
        difference = np.abs(arrays[name].astype(float) - others[name])
        assert difference.max() > 0 and np.all(difference <= error), name
        assert error.max() < 2e-3 * max(1, np.abs(arrays[name]).max()), name


def test_numbers_below_the_smallest_normal_one_may_be_zero():
    """TensorFlow takes them for 0, the runtime does not: 1e-40 times 1e30 is 1e-10 or 0."""
    graph = Sketch((2,)).add(ir.Affine, "product", multiplier=np.array([1e30, 1e30], "f")).graph()
    error = rounding.enclose(graph, "product", {"x": np.array([[1e-40, 1e-30]], "f")}).error[0]
    assert 1e-10 <= error[0] < 1.1e-10 and error[1] < 1e-5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(0, 999), st.sampled_from([1e-3, 1.0, 1e4]), st.floats(-100, 100))
def test_a_layer_in_any_order_is_near_its_sum_in_float64(terms, seed, spread, offset):
    """Of sums that cancel or do not, folded into a batch norm before or after; with the sums of one program or none."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(terms, 3)) * spread
    scale, bias = rng.uniform(-2, 2, 3).astype("f"), rng.normal(size=3).astype("f")
    x = (rng.normal(size=(4, terms)) + offset).astype("f")
    op = ir.Conv2D("dense", ("x",), ("dense",), window=ir.Window(), weights=weights.astype("f")[None, None], bias=bias)
    norm = ir.Affine("norm", ("dense",), ("norm",), multiplier=scale)
    tensors = [
        ir.Tensor("x", ir.DType.FLOAT32, (terms,)),
        *(ir.Tensor(n, ir.DType.FLOAT32, (3,)) for n in ("dense", "norm")),
    ]
    graph = ir.Graph.build("g", tensors, [op, norm], ["x"], ["norm"])
    exact = (x.astype(float) @ op.weights[0, 0].astype(float) + bias).astype("f") * scale
    folded = ir.Conv2D("d", ("x",), ("d",), window=ir.Window(), weights=op.weights * scale, bias=bias * scale)
    alone = folded.exact(x, tensors[0], tensors[1])
    rounded = in_another_order(x, folded.weights[0, 0], rng) + folded.bias
    for settled, found in ((None, rounded), ("dense", alone)):
        rules = rounding.Rules(exact=frozenset({"dense"}), settled=settled)
        error = rounding.enclose(graph, "norm", {"x": x}, rules).error
        assert np.all(np.abs(found - exact.astype(float)) <= error)
        if settled:
            assert np.all(
                error <= 60 * 2.0**-24 * ((np.abs(x) @ np.abs(op.weights[0, 0]) + np.abs(bias)) * np.abs(scale) + 1e-30)
            )


# ---- What it finds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quantizers",
    [("ste_sign", "magnitude_aware_sign"), ("dorefa_quantizer", "ste_sign"), ("ste_heaviside", "ste_sign")],
    ids=" ".join,
)
def test_sums_that_keras_rounds_and_the_device_does_not(quantizers):
    """Scaled kernels and levels: the distance is allowed for, and a turned weight found nevertheless."""
    from larq_clip._keras import keras, lq

    first, second = quantizers
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Conv2D(12, 3, name="stem"), keras.layers.BatchNormalization(name="norm")]
    for name in ("conv", "conv_2"):
        layers.append(
            lq.layers.QuantConv2D(
                16, 3, name=name, input_quantizer=first, kernel_quantizer=second, use_bias=False, padding="same"
            )
        )
        layers.append(keras.layers.BatchNormalization(name=f"{name}_norm"))
    model = as_if_trained(keras.Sequential([keras.layers.InputLayer((9, 9, 3), name="image"), *layers]))
    data = convert_keras_model(model)
    found = verify_keras_model(model, data, samples=8).require()
    assert found.allowed["conv_2_norm"] < 0.1
    wrong, layer = changed(data, "BinaryConv2D", -1, weights=at((5, 1, 1, slice(0, 6)), lambda bits: 1 - bits))
    mismatch = verify_keras_model(model, wrong, samples=8, constants=False).mismatch
    assert mismatch.place[-1] == 5 and "conv_2" in mismatch.layer


def scaled_model(kind: str):
    """A residual network in the style of Bi-Real Net, XNOR-Net or DoReFa-Net, with the float layers of each."""
    from larq_clip._keras import keras, lq, tf

    layers = keras.layers

    def xnor(kernel):
        clipped = tf.clip_by_value(kernel, -1, 1)
        return tf.reduce_mean(tf.abs(clipped), axis=[0, 1, 2], keepdims=True) * lq.quantizers.SteSign()(clipped)

    xnor.precision = 1
    quantizers = {
        "bi-real": ("approx_sign", "magnitude_aware_sign"),
        "xnor": ("ste_sign", xnor),
        "dorefa": (lq.quantizers.DoReFa(2), lq.quantizers.DoReFa(1, mode="weights")),
        "separable": ("ste_sign", "magnitude_aware_sign"),
    }[kind]

    def block(x, name):
        if kind == "separable":
            signs = {"input_quantizer": quantizers[0], "depthwise_quantizer": quantizers[1]}
            return lq.layers.QuantSeparableConv2D(64, 3, padding="same", name=name, use_bias=False, **signs)(x)
        arguments = {"input_quantizer": quantizers[0], "kernel_quantizer": quantizers[1], "use_bias": False}
        return lq.layers.QuantConv2D(64, 3, padding="same", name=name, **arguments)(x)

    keras.utils.set_random_seed(3)
    image = keras.Input((9, 9, 3), name="image")
    x = layers.BatchNormalization(name="stem_norm")(layers.Conv2D(64, 3, 2, use_bias=False, name="stem")(image))
    for i in range(2):
        y = layers.BatchNormalization(name=f"norm_{i}")(block(x, f"conv_{i}"))
        shortcut = layers.Conv2D(64, 1, name=f"shortcut_{i}")(x)
        x = layers.Add(name=f"add_{i}")([layers.PReLU(shared_axes=[1, 2], name=f"prelu_{i}")(y), shortcut])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return as_if_trained(keras.Model(image, layers.Dense(5, name="dense")(x)))


CONSTANTS = ("weights", "multiplier", "offset")


@pytest.mark.parametrize("kind", ["bi-real", "xnor", "dorefa", "separable"])
def test_a_float_weight_that_is_off_by_a_thousandth_is_found(kind):
    """Each float constant of the file in turn: weights of a convolution, scale and offset behind a binary one."""
    model = scaled_model(kind)
    data = convert_keras_model(model)
    right = verify_keras_model(model, data, constants=False).require()
    assert max(right.allowed.values()) < 2e-3
    rng, tried = np.random.default_rng(0), set()
    for op in reader.read(data).ops:
        places = [other for other in reader.read(data).ops if other.type == op.type]
        number = [other.name for other in places].index(op.name)
        for field in CONSTANTS:
            constant = getattr(op, field, None)
            if constant is None or constant.dtype != np.float32 or not np.any(constant):
                continue
            place = tuple(int(i) for i in rng.choice(np.argwhere(constant)))
            wrong, layer = changed(data, op.type, number, **{field: at(place, lambda w: w * np.float32(1.001))})
            mismatch = verify_keras_model(model, wrong, constants=False).mismatch
            assert mismatch is not None, (op.name, op.type, field, place)
            assert set(layer.split("+")) <= set(mismatch.layer.split("+")), (layer, str(mismatch))
            if mismatch.tensor in op.outputs:  # and not behind a pointwise convolution, say
                assert mismatch.place[-1] == place[-1]
            tried.add(op.name)
    assert len(tried) >= 5
