"""Graphs of layers: merges, code, models inside of models, layers called twice, several inputs and outputs."""

from __future__ import annotations

import numpy as np
import pytest
from converter_support import ops_of
from keras_support import BINARY, check, convert, functional, images, randomize, sequential

from larq_clip._keras import keras, lq, tf
from larq_clip.converter import ir, keras_importer

L, Q = keras.layers, lq.layers
IMAGE = (6, 5, 4)
CONSTANT = np.array([1.0, 2.0, 0.3, -4.0], np.float32)


def squeeze_and_excite(x):
    return L.Multiply()([x, L.Reshape((1, 1, 4))(L.Dense(4, "sigmoid")(L.GlobalAveragePooling2D()(x)))])


def padded_sum(x):
    narrow = L.Conv2D(2, 1)(x)
    return L.Lambda(lambda t: t[0] + tf.pad(t[1], [[0, 0], [0, 0], [0, 0], [1, 1]]))([x, narrow])


# By a word: what is built on an image, and whether the outputs are equal.
CASES = {
    "add": (lambda x: L.Add()([x, L.ReLU()(x), L.LeakyReLU(0.2)(x)]), True),
    "add one pixel": (lambda x: L.Add()([x, L.GlobalMaxPooling2D(keepdims=True)(x)]), True),
    "multiply a vector": (lambda x: L.Multiply()([x, L.GlobalMaxPooling2D()(x)]), True),
    "subtract, average": (lambda x: L.Average()([x, L.Subtract()([L.ReLU()(x), x])]), True),
    "maximum, minimum": (lambda x: L.Maximum()([x, L.Minimum()([L.ReLU(0.5)(x), L.ReLU()(x)])]), True),
    "concatenate": (lambda x: L.Concatenate()([x, L.ReLU()(x), L.Conv2D(3, 1)(x)]), False),
    "squeeze and excite": (squeeze_and_excite, False),
    "hard gate": (lambda x: L.Multiply()([x, L.Dense(4, "hard_sigmoid")(L.GlobalMaxPooling2D()(x))]), False),
    "operators": (lambda x: tf.nn.relu6(x * 2.5 + 1.0) - tf.nn.leaky_relu(1.0 - x, 0.3), True),
    "constants by channel": (lambda x: CONSTANT * x + tf.constant(CONSTANT[::-1]), True),
    "rescaled": (lambda x: L.Lambda(lambda t: t * CONSTANT + 0.7)(x), True),
    "identity": (lambda x: L.ReLU()(L.Lambda(lambda t: t)(x)), True),
    "clip": (lambda x: L.Lambda(lambda t: tf.clip_by_value(t, -0.25, 0.75))(x), True),
    "sign": (lambda x: L.Lambda(lambda t: tf.where(t < 0, -tf.ones_like(t), tf.ones_like(t)))(x), True),
    "functions": (lambda x: tf.tanh(tf.sigmoid(x)), False),
    "softmax": (lambda x: tf.nn.softmax(x), False),
    "slices": (lambda x: tf.concat([x[..., 1:3], x[..., 2:], x[..., :1]], axis=-1), True),
    "split": (lambda x: tf.maximum(*tf.split(x, 2, axis=-1)), True),
    "uneven split": (lambda x: L.Concatenate()(tf.split(x, [3, 1], axis=-1)[::-1]), True),
    "shuffle": (lambda x: L.Lambda(lambda t: tf.gather(t, [3, 1, 0, 2, 2], axis=-1))(x), True),
    "long shuffle": (lambda x: L.Lambda(lambda t: tf.gather(t, [3, 1, 0, 2] * 3, axis=-1))(x), True),
    "crop, pad": (lambda x: tf.pad(x[:, 1:-1, 2:], [[0, 0], [1, 0], [0, 2], [0, 0]]), True),
    "reshape": (lambda x: tf.reshape(x, [-1, 30, 4]), True),
    "mean": (lambda x: tf.reduce_mean(x, axis=[1, 2]), False),
    "largest": (lambda x: tf.reduce_max(x, axis=[1, 2], keepdims=True) + x, True),
    "padded sum": (padded_sum, False),
}


@pytest.mark.parametrize("case", CASES)
def test_operation(case):
    build, exact = CASES[case]
    check(functional(IMAGE, build), exact=exact)


def test_what_keeps_its_input_leaves_no_trace():
    graph = check(functional(IMAGE, lambda x: L.ReLU()(L.Lambda(lambda t: t)(L.Dropout(0.5)(x)))), exact=True)
    assert [op.type for op in graph.ops] == ["Affine"]


def test_a_split_that_nothing_reads_is_not_computed():
    graph = check(functional(IMAGE, lambda x: tf.split(x, 4, axis=-1)[2] * 2.0), exact=True)
    assert [op.begin_c for op in ops_of(graph, ir.Slice)] == [2]


def test_models_inside_of_models():
    """Sequential and functional ones, one called twice, and one inside of another."""
    block = keras.Sequential([keras.Input(IMAGE), Q.QuantConv2D(4, 3, padding="same", **BINARY)], name="block")
    inner = functional(IMAGE, lambda x: L.Add(name="sum")([x, block(x)]))
    inner._name = "inner"
    graph = check(functional(IMAGE, lambda x: L.Concatenate()([inner(x), block(inner(x))])), exact=True)
    layer = block.layers[0].name
    names = {op.name for op in ops_of(graph, ir.BinaryConv2D)}
    assert {f"inner/block/{layer}", f"inner#2/block/{layer}", f"block/{layer}"} == {n.split("+")[0] for n in names}


def test_a_model_of_several_inputs_inside_of_another():
    a, b = keras.Input(IMAGE, name="a"), keras.Input(IMAGE, name="b")
    inner = keras.Model({"a": a, "b": b}, [L.Subtract()([a, b]), L.Multiply()([a, b])], name="inner")

    def build(x):
        difference, product = inner({"b": x, "a": L.ReLU()(x)})
        return L.Concatenate()([difference, product])

    check(functional(IMAGE, build), exact=True)


def test_layers_called_twice():
    shared = Q.QuantConv2D(4, 3, padding="same", use_bias=False, **BINARY)
    graph = check(functional(IMAGE, lambda x: L.Add()([shared(x), shared(shared(x))])), exact=True)
    names = {name.split("+")[0] for op in ops_of(graph, ir.BinaryConv2D) for name in [op.name]}
    assert names == {shared.name, f"{shared.name}#2", f"{shared.name}#3"}


def test_several_inputs_and_outputs():
    a, b = keras.Input(IMAGE, name="a"), keras.Input((3,), name="b")
    vector = L.Concatenate()([L.GlobalMaxPooling2D()(a), b])
    model = keras.Model([a, b], [Q.QuantDense(4, **BINARY)(vector), L.ReLU()(a), vector])
    graph = check(model, exact=True)
    assert graph.inputs == ("a", "b") and len(graph.outputs) == 3


def test_a_batch_of_a_fixed_size():
    """The runtime computes image by image, whatever the batch that the model was built for."""
    x = keras.Input(batch_shape=(2, *IMAGE))
    check(keras.Model(x, Q.QuantConv2D(4, 3, **BINARY)(x)), exact=True, count=2)


def test_random_code_is_refused_by_what_it_computes():
    """Nearly the identity, nearly a relu: nothing is taken for what it is not."""
    from larq_clip.errors import ConversionError

    for function in (
        lambda t: tf.where(tf.abs(t - 1.7) < 0.02, 0.0, t),
        lambda t: tf.nn.relu(t) * tf.cast(t < 1e20, tf.float32),
        lambda t: t / 3.0,
        lambda t: tf.nn.relu(t - 0.5) + t,
        lambda t: tf.reverse(t, [1]),
        lambda t: tf.reduce_mean(t, -1, keepdims=True),
    ):
        with pytest.raises(ConversionError, match="its code computes none of what the converter knows"):
            keras_importer.import_model(sequential(IMAGE, L.Lambda(function, name="code")))


def test_outputs_of_images_do_not_depend_on_each_other():
    model = functional(IMAGE, squeeze_and_excite)
    randomize(model)
    (x,) = images(model, 4)
    _, (together,) = convert(model, [x])
    _, (alone,) = convert(model, [x[2:3]])
    np.testing.assert_array_equal(together[2:3], alone)
