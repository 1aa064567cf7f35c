"""Random Keras models from the vocabulary of the converter, for hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from larq_clip._keras import keras, lq, tf

L, Q = keras.layers, lq.layers
SIGNS = ("ste_sign", "approx_sign", "swish_sign")
KERNELS = ("ste_sign", "ste_sign", "magnitude_aware_sign", "mean scale", "ste_tern", "dorefa", None)
ACTIVATIONS = ("relu", "sigmoid", "tanh", "hard_sigmoid", "hard_tanh", "linear")


def input_quantizer(draw) -> Any:
    kind = draw(st.sampled_from([*SIGNS, "ste_heaviside", "dorefa", None]))
    return lq.quantizers.DoReFa(draw(st.integers(1, 3))) if kind == "dorefa" else kind


def mean_scale(kernel):
    """XNOR-Net's quantizer."""
    clipped = tf.clip_by_value(kernel, -1, 1)
    axes = list(range(kernel.shape.rank - 1))
    return tf.reduce_mean(tf.abs(clipped), axis=axes, keepdims=True) * lq.quantizers.SteSign()(clipped)


def kernel_quantizer(draw) -> Any:
    kind = draw(st.sampled_from(KERNELS))
    if kind == "dorefa":
        return lq.quantizers.DoReFa(draw(st.integers(1, 2)), mode="weights")
    return mean_scale if kind == "mean scale" else kind


def placed(draw, x, largest: int = 3) -> dict[str, Any]:
    """Kernel, strides or dilation, and padding that fit an image."""
    smallest = min(x.shape[1:3])
    kernel = draw(st.integers(1, min(largest, smallest)))
    padding = draw(st.sampled_from(["same", "valid"]))
    arguments = {"kernel_size": kernel, "padding": padding}
    if draw(st.booleans()):
        return {**arguments, "strides": draw(st.integers(1, 2))}
    fits = padding == "same" or (kernel - 1) * 2 < smallest
    return {**arguments, "dilation_rate": 2 if fits and draw(st.booleans()) else 1}


def binary_conv(draw, x):
    arguments = placed(draw, x)
    quantizer = input_quantizer(draw)
    low = 0 if quantizer == "ste_heaviside" or isinstance(quantizer, lq.quantizers.DoReFa) else -1
    groups = draw(st.sampled_from([g for g in (1, 2, 4) if x.shape[-1] % g == 0]))
    return Q.QuantConv2D(
        groups * draw(st.sampled_from([1, 3, 16])),
        groups=groups,
        input_quantizer=quantizer,
        kernel_quantizer=kernel_quantizer(draw),
        pad_values=float(draw(st.integers(low, 1))),
        use_bias=draw(st.booleans()),
        activation=draw(st.sampled_from(["relu", "linear"])),
        **arguments,
    )(x)


def depthwise(draw, x):
    arguments = {**placed(draw, x), "depth_multiplier": draw(st.integers(1, 2))}
    if draw(st.booleans()):
        return L.DepthwiseConv2D(**arguments)(x)
    return Q.QuantDepthwiseConv2D(input_quantizer="ste_sign", depthwise_quantizer="ste_sign", **arguments)(x)


def separable(draw, x):
    quantizers = dict.fromkeys(("input_quantizer", "depthwise_quantizer", "pointwise_quantizer"), "ste_sign")
    return Q.QuantSeparableConv2D(3, **{**placed(draw, x), **draw(st.sampled_from([quantizers, {}]))})(x)


def transposed(draw, x):
    arguments = {"kernel_size": draw(st.integers(1, 4)), "strides": draw(st.integers(1, 3))}
    arguments["padding"] = draw(st.sampled_from(["same", "valid"]))
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    return Q.QuantConv2DTranspose(3, **{**arguments, **draw(st.sampled_from([quantizers, {}]))})(x)


def conv(draw, x):
    return L.Conv2D(draw(st.integers(1, 5)), activation=draw(st.sampled_from(ACTIVATIONS)), **placed(draw, x))(x)


def pool(draw, x):
    size, padding = draw(st.integers(1, min(3, *x.shape[1:3]))), draw(st.sampled_from(["same", "valid"]))
    kind = draw(st.sampled_from([L.MaxPooling2D, L.AveragePooling2D]))
    return kind(size, draw(st.integers(1, 2)), padding)(x)


def moved(draw, x):
    """Elements in other places."""
    kind = draw(st.sampled_from(["pad", "crop", "up", "slice", "split", "reshape", "shuffle"]))
    channels = x.shape[-1]
    if kind == "pad":
        return L.ZeroPadding2D(((draw(st.integers(0, 2)), 1), (1, draw(st.integers(0, 2)))))(x)
    if kind == "crop" and min(x.shape[1:3]) > 1:
        return L.Cropping2D(((1, 0), (0, 1)))(x)
    if kind == "up":
        return L.UpSampling2D((1, 2))(x)
    if kind == "slice" and channels > 1:
        return x[..., draw(st.integers(0, channels - 1)) :]
    if kind == "split" and channels > 1:
        first = draw(st.integers(1, channels - 1))
        return L.Concatenate()(tf.split(x, [first, channels - first], axis=-1)[::-1])
    if kind == "reshape":
        return L.Reshape((x.shape[2], x.shape[1], channels))(x)
    order = draw(st.permutations(range(min(channels, 5))))
    return L.Lambda(lambda t: tf.gather(t, order, axis=-1))(x)


def elementwise(draw, x):
    layers = [
        lambda: L.BatchNormalization(scale=draw(st.booleans()), center=draw(st.booleans())),
        lambda: L.BatchNormalization(),
        lambda: L.Activation(draw(st.sampled_from(ACTIVATIONS))),
        lambda: L.ReLU(draw(st.sampled_from([None, 6.0, 0.5])), draw(st.sampled_from([0.0, 0.25]))),
        lambda: L.PReLU(shared_axes=[1, 2]),
        lambda: L.LeakyReLU(0.1),
        lambda: L.Dropout(0.5),
        lambda: L.Lambda(lambda t: 0.5 - t * 1.25),
        lambda: lq.quantizers.SteSign(),
        lambda: lq.quantizers.DoReFa(2),
    ]
    return draw(st.sampled_from(layers))()(x)


def merged(draw, x, others):
    same = [other for other in others if other.shape == x.shape]
    kind = draw(
        st.sampled_from(["gate", "concatenate", "add", "multiply", "subtract", "maximum", "minimum", "average"])
    )
    if kind == "gate":
        gate = L.Dense(x.shape[-1], activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
        return L.Multiply()([x, gate])
    if kind == "concatenate":
        fits = [other for other in others if other.shape[1:3] == x.shape[1:3]]
        return L.Concatenate()([x, draw(st.sampled_from(fits))])
    layer = {"add": L.Add, "multiply": L.Multiply, "subtract": L.Subtract, "maximum": L.Maximum}
    layer |= {"minimum": L.Minimum, "average": L.Average}
    layer = layer[kind]
    return layer()([x, draw(st.sampled_from(same))])


def block(draw, x):
    """A model inside of the model, called twice."""
    given = keras.Input(x.shape[1:])
    arguments = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "padding": "same"}
    inner = keras.Model(given, L.BatchNormalization()(Q.QuantConv2D(x.shape[-1], 3, **arguments)(given)))
    return L.Add()([inner(x), inner(inner(x))])


STEPS = (binary_conv, binary_conv, binary_conv, elementwise, elementwise, elementwise, conv, pool, moved)
RARE = (depthwise, separable, transposed, block)


def sequence(draw, x):
    """A layer of ``(length, channels)``."""
    length, channels = x.shape[1:]
    layers = [
        lambda: L.BatchNormalization(),
        lambda: L.Activation(draw(st.sampled_from(ACTIVATIONS))),
        lambda: L.PReLU(shared_axes=[1]),
        lambda: L.ZeroPadding1D(draw(st.integers(1, 2))),
        lambda: L.MaxPooling1D(min(2, length), draw(st.integers(1, 2)), draw(st.sampled_from(["same", "valid"]))),
        lambda: L.AveragePooling1D(min(2, length), 1, "same"),
        lambda: L.Dense(draw(st.integers(1, 5))),
        lambda: Q.QuantDense(3, input_quantizer=input_quantizer(draw), kernel_quantizer="ste_sign"),
        lambda: L.Conv1D(3, min(3, length), activation="relu"),
        lambda: L.Reshape((channels, length)),
    ]
    return draw(st.sampled_from(layers))()(x)


def binary_sequence(draw, x):
    padding = draw(st.sampled_from(["same", "valid", "causal"]))
    return Q.QuantConv1D(
        draw(st.sampled_from([1, 4, 16])),
        draw(st.integers(1, min(3, x.shape[1]))),
        padding=padding,
        dilation_rate=draw(st.integers(1, 2)) if padding != "valid" else 1,
        input_quantizer=input_quantizer(draw),
        kernel_quantizer=draw(st.sampled_from(["ste_sign", "magnitude_aware_sign", None])),
        use_bias=draw(st.booleans()),
    )(x)


def random_sequence_model(draw: Callable[[st.SearchStrategy], Any]) -> Any:
    """Up to six layers on rows, and sometimes a dense end of their largest."""
    x = given = keras.Input((draw(st.integers(2, 9)), draw(st.sampled_from([1, 4, 33]))))
    for _ in range(draw(st.integers(1, 6))):
        x = draw(st.sampled_from([binary_sequence, sequence]))(draw, x)
    if draw(st.booleans()):
        x = draw(st.sampled_from([L.GlobalMaxPooling1D, L.GlobalAveragePooling1D, L.Flatten]))()(x)
        for _ in range(draw(st.integers(1, 2))):
            x = Q.QuantDense(4, input_quantizer=input_quantizer(draw), kernel_quantizer=draw(st.sampled_from(SIGNS)))(x)
            x = L.BatchNormalization()(x)
    return keras.Model(given, L.ReLU(6.0)(x))


def random_model(draw: Callable[[st.SearchStrategy], Any]) -> Any:
    """Up to six layers on an image, and sometimes a dense end; one in six on rows.

    Called by the test, not a strategy: Keras takes names from Python's random numbers, which hypothesis minds.
    """
    if draw(st.sampled_from([True, *[False] * 5])):
        return random_sequence_model(draw)
    size = st.integers(2, 6)
    given = keras.Input((draw(size), draw(size), draw(st.sampled_from([1, 3, 4, 8, 33]))))
    tensors = [given]
    for _ in range(draw(st.integers(1, 6))):
        x = draw(st.sampled_from(tensors[-2:]))
        kind = draw(st.sampled_from([*STEPS, *RARE, merged]))
        tensors.append(merged(draw, x, tensors) if kind is merged else kind(draw, x))
    end = tensors[-1]
    if draw(st.booleans()):
        flat = draw(st.sampled_from([L.Flatten, L.GlobalMaxPooling2D, L.GlobalAveragePooling2D]))()(end)
        end = Q.QuantDense(4, input_quantizer=input_quantizer(draw), kernel_quantizer="ste_sign")(flat)
        end = L.Softmax()(end) if draw(st.booleans()) else end
    more = [draw(st.sampled_from(tensors[1:]))] if draw(st.booleans()) else []
    return keras.Model(given, [L.ReLU(6.0)(end), *more])
