"""Which handler appends to the graph what a layer computes in inference, by the layer's type.

Types are matched exactly, since a subclass may compute anything.
"""

from __future__ import annotations

from larq_clip._graph import FIXED_POINT
from larq_clip._keras import keras, lq
from larq_clip.converter.ir import ArithmeticKind
from larq_clip.converter.keras_importer import activations, fixed_point, merges, norms, shapes, transposed, weights
from larq_clip.converter.keras_importer.context import Handler, Join
from larq_clip.converter.keras_importer.exact_sums import LARQ_LAYERS
from larq_clip.layers import (
    Add,
    Concatenate,
    FixedPointBatchNormalization,
    Int8Conv2D,
    Int8Dense,
    Int8DepthwiseConv2D,
    PadChannels,
    QuantConv2D,
    QuantDense,
    StorageQuantizer,
    TakeChannels,
)

_layers = keras.layers

HANDLERS: dict[type, Handler] = {
    QuantConv2D: weights.conv2d,
    QuantDense: weights.dense,
    lq.layers.QuantConv1D: weights.conv1d,
    lq.layers.QuantConv2D: weights.conv2d,
    lq.layers.QuantConv2DTranspose: transposed.conv2d_transpose,
    lq.layers.QuantDense: weights.dense,
    lq.layers.QuantDepthwiseConv2D: weights.depthwise,
    lq.layers.QuantSeparableConv2D: weights.separable,
    _layers.Conv1D: weights.conv1d,
    _layers.Conv2D: weights.conv2d,
    _layers.Conv2DTranspose: transposed.conv2d_transpose,
    _layers.Dense: weights.dense,
    _layers.DepthwiseConv2D: weights.depthwise,
    _layers.SeparableConv2D: weights.separable,
    _layers.BatchNormalization: norms.batch_norm,
    _layers.MaxPooling1D: shapes.local_pool_1d(shapes.maximum),
    _layers.MaxPooling2D: shapes.local_pool(shapes.maximum),
    _layers.AveragePooling1D: shapes.local_pool_1d(shapes.mean),
    _layers.AveragePooling2D: shapes.local_pool(shapes.mean),
    _layers.GlobalMaxPooling1D: shapes.global_pool_1d(shapes.maximum),
    _layers.GlobalMaxPooling2D: shapes.global_pool(shapes.maximum),
    _layers.GlobalAveragePooling1D: shapes.global_pool_1d(shapes.mean),
    _layers.GlobalAveragePooling2D: shapes.global_pool(shapes.mean),
    _layers.Flatten: shapes.flatten,
    _layers.Reshape: shapes.reshape,
    _layers.ZeroPadding1D: shapes.zero_padding_1d,
    _layers.ZeroPadding2D: shapes.zero_padding,
    _layers.Cropping1D: shapes.cropping_1d,
    _layers.Cropping2D: shapes.cropping,
    _layers.UpSampling2D: shapes.upsampling,
    _layers.Activation: activations.activation_layer,
    _layers.ReLU: activations.relu_layer,
    _layers.LeakyReLU: activations.leaky_relu,
    _layers.PReLU: activations.prelu,
    _layers.Softmax: activations.softmax_layer,
    _layers.Rescaling: activations.rescaling,
    TakeChannels: fixed_point.take_channels,
    PadChannels: fixed_point.pad_channels,
    FixedPointBatchNormalization: norms.fixed_point_batch_norm,
    StorageQuantizer: fixed_point.storage_quantizer,
    Int8Conv2D: weights.int8_layer,
    Int8DepthwiseConv2D: weights.int8_layer,
    Int8Dense: weights.int8_layer,
    lq.quantizers.SteSign: activations.quantizer_layer,
    lq.quantizers.ApproxSign: activations.quantizer_layer,
    lq.quantizers.SwishSign: activations.quantizer_layer,
    lq.quantizers.SteHeaviside: activations.quantizer_layer,
    lq.quantizers.DoReFa: activations.quantizer_layer,
    lq.quantizers.NoOp: shapes.nothing,
    _layers.Dropout: shapes.nothing,
    _layers.AlphaDropout: shapes.nothing,
    _layers.SpatialDropout1D: shapes.nothing,
    _layers.SpatialDropout2D: shapes.nothing,
    _layers.GaussianDropout: shapes.nothing,
    _layers.GaussianNoise: shapes.nothing,
    _layers.ActivityRegularization: shapes.nothing,
}

# Layers with several inputs.
JOINS: dict[type, Join] = {
    Add: fixed_point.add,
    Concatenate: fixed_point.concatenate,
    _layers.Add: merges.fold(ArithmeticKind.ADD),
    _layers.Average: merges.average,
    _layers.Concatenate: merges.concatenate,
    _layers.Maximum: merges.fold(ArithmeticKind.MAXIMUM),
    _layers.Minimum: merges.fold(ArithmeticKind.MINIMUM),
    _layers.Multiply: merges.fold(ArithmeticKind.MULTIPLY),
    _layers.Subtract: merges.subtract,
}

# Layers that compute in float64 what they compute in float32: what they give is among what they get.
EXACT_IN_FLOAT64 = (
    _layers.MaxPooling2D,
    _layers.GlobalMaxPooling2D,
    _layers.Flatten,
    _layers.Reshape,
    _layers.Activation,
    _layers.ReLU,
    _layers.ZeroPadding2D,
    _layers.Cropping2D,
    _layers.Dropout,
    _layers.SpatialDropout2D,
)
MEANS = (_layers.AveragePooling2D, _layers.GlobalAveragePooling2D)
# Layers that do not cast what they get to float32, or take the sign of it at once, which that leaves as it is.
UNCAST = (
    *FIXED_POINT,
    QuantConv2D,
    QuantDense,
    *LARQ_LAYERS,
)


def supported_layers() -> str:
    """Names of the supported layer types, in words."""
    return ", ".join(dict.fromkeys(layer.__name__ for layer in (*HANDLERS, *JOINS)))
