"""Builders of the backbones' architectures, from keras.applications and keras-cv.

A builder takes `input_shape` [size, size, channels] and `weights` (None or "imagenet") and returns a
functional model without a classification head. keras-cv is frozen upstream, and its named classes download
files even without weights; therefore its base classes are built here from their `stackwise_*` parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

Shape = tuple[int, int, int]
Builder = Callable[..., keras.Model]

#: MiT halves its feature map five times and fails on odd sizes; CSPDarkNet first moves every second pixel
#: into the channels, which needs an even size.
_MIT_MULTIPLE = 32
_CSP_MULTIPLE = 2


@dataclass(frozen=True)
class InputScale:
    """Input normalisation of pretrained weights: (image - mean) / deviation in each colour channel.

    Attributes:
        mean: mean of the training images in [0, 1], by red, green, blue.
        deviation: their standard deviation, by red, green, blue.
    """

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def layer(self, channels: int = 3) -> keras.Layer:
        """Returns the normalisation layer.

        Args:
            channels: 3, or 1 for grey images, which use the mean over the three colour channels.
        """
        mean, deviation = np.array(self.mean), np.array(self.deviation)
        if channels == 1:
            mean, deviation = mean.mean(keepdims=True), deviation.mean(keepdims=True)
        # Lists, because the configuration of a layer must be JSON.
        return keras.layers.Rescaling((1 / deviation).tolist(), (-mean / deviation).tolist())


#: [0, 1] to [-1, 1] (`imagenet_utils.preprocess_input` in `tf` mode); also for backbones without weights.
SYMMETRIC = InputScale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
#: Zero mean and unit variance on ImageNet (`imagenet_utils.preprocess_input` in `torch` mode).
TORCH = InputScale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: EfficientNetV2-S, -M and -L: image / 128 - 1, for images in [0, 255].
OVER_128 = InputScale((128 / 255,) * 3, (128 / 255,) * 3)
#: EfficientNet-Lite: (image - 127) / 128, for images in [0, 255].
LITE = InputScale((127 / 255,) * 3, (128 / 255,) * 3)


def applications(name: str, **options: Any) -> Builder:
    """Returns the builder of a model of keras.applications."""
    return partial(getattr(keras.applications, name), include_top=False, **options)


def cut_before(layer: str) -> Callable[[keras.Model], keras.Model]:
    """Returns a function that removes the part of a model before a layer."""

    def cut(model: keras.Model) -> keras.Model:
        rest = keras.Model(model.get_layer(layer).input, model.output, name=model.name)
        # Copied, because `layer.output` refers to the first call of a layer, which is in the original model.
        copy = keras.models.clone_model(rest)
        copy.set_weights(rest.get_weights())
        return copy

    return cut


def cut_after(layer: str) -> Callable[[keras.Model], keras.Model]:
    """Returns a function that removes the part of a model after a layer."""

    def cut(model: keras.Model) -> keras.Model:
        return keras.Model(model.input, model.get_layer(layer).output, name=model.name)

    return cut


def resnet_v2(filters: tuple[int, ...], blocks: tuple[int, ...]) -> Builder:
    """Returns the builder of keras-cv's ResNetV2 with basic blocks."""

    def build(input_shape: Shape, weights: None) -> keras.Model:
        import keras_cv

        return keras_cv.models.ResNetV2Backbone(
            stackwise_filters=list(filters),
            stackwise_blocks=list(blocks),
            stackwise_strides=[1, *[2] * (len(filters) - 1)],
            include_rescaling=False,
            block_type="basic_block",
            input_shape=input_shape,
        )

    return build


def csp_darknet(channels: tuple[int, ...], depth: tuple[int, ...]) -> Builder:
    """Returns the builder of keras-cv's CSPDarkNet; images of odd size are padded with zeros."""

    def build(input_shape: Shape, weights: None) -> keras.Model:
        import keras_cv

        return keras_cv.models.CSPDarkNetBackbone(
            stackwise_channels=list(channels),
            stackwise_depth=list(depth),
            include_rescaling=False,
            use_depthwise=False,
            input_shape=input_shape,
        )

    return _padded(build, _CSP_MULTIPLE)


def efficientnet_lite(width: float, depth: float) -> Builder:
    """Returns the builder of keras-cv's EfficientNet-Lite.

    It is EfficientNet (Tan and Le 2019, arXiv:1905.11946, table 1) without squeeze-and-excitation and with
    ReLU6.
    """

    def build(input_shape: Shape, weights: None) -> keras.Model:
        import keras_cv

        return keras_cv.models.EfficientNetLiteBackbone(
            include_rescaling=False,
            width_coefficient=width,
            depth_coefficient=depth,
            stackwise_kernel_sizes=[3, 3, 5, 3, 5, 5, 3],
            stackwise_num_repeats=[1, 2, 2, 3, 3, 4, 1],
            stackwise_input_filters=[32, 16, 24, 40, 80, 112, 192],
            stackwise_output_filters=[16, 24, 40, 80, 112, 192, 320],
            stackwise_expansion_ratios=[1, 6, 6, 6, 6, 6, 6],
            stackwise_strides=[1, 2, 2, 2, 1, 2, 1],
            input_shape=input_shape,
        )

    return build


def densenet(repeats: tuple[int, ...], growth: int) -> Builder:
    """Returns the builder of keras-cv's DenseNet."""

    def build(input_shape: Shape, weights: None) -> keras.Model:
        import keras_cv

        return keras_cv.models.DenseNetBackbone(
            stackwise_num_repeats=list(repeats),
            include_rescaling=False,
            growth_rate=growth,
            input_shape=input_shape,
        )

    return build


def mix_transformer(depths: tuple[int, ...], widths: tuple[int, ...]) -> Builder:
    """Returns the builder of keras-cv's Mix Transformer.

    It is the encoder of SegFormer (Xie et al. 2021, arXiv:2105.15203). Images are padded
    with zeros to a multiple of 32 px.
    """

    def build(input_shape: Shape, weights: None) -> keras.Model:
        import keras_cv

        return keras_cv.models.MiTBackbone(
            include_rescaling=False,
            depths=list(depths),
            embedding_dims=list(widths),
            input_shape=input_shape,
        )

    return _padded(build, _MIT_MULTIPLE)


def _padded(build: Builder, multiple: int) -> Builder:
    """Returns a builder that pads images with zeros to a multiple of a size in pixels."""

    def build_padded(input_shape: Shape, weights: None) -> keras.Model:
        size, _, channels = input_shape
        missing = -size % multiple
        if not missing:
            return build(input_shape=input_shape, weights=weights)
        body = build(input_shape=(size + missing, size + missing, channels), weights=weights)
        inputs = keras.Input(input_shape)
        before = missing // 2
        padding = keras.layers.ZeroPadding2D(((before, missing - before),) * 2)
        return keras.Model(inputs, body(padding(inputs)))

    return build_padded
