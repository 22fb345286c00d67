"""Builders of the architectures behind the backbones: keras.applications and keras-cv.

A builder takes `input_shape` [size, size, channels] and `weights` (None or "imagenet") and returns
a headless functional model. keras-cv is frozen upstream and its named classes reach for the network even
without weights, so its base classes are built here from `stackwise_*` alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

Shape = tuple[int, int, int]
Builder = Callable[..., keras.Model]

#: MiT halves its feature map five times and cannot take an odd one on the way; CSPDarkNet lays every second
#: pixel beside its neighbour first, and needs whole pairs.
_MIT_MULTIPLE = 32
_CSP_MULTIPLE = 2


def applications(name: str, **options: Any) -> Builder:
    """Returns the builder of a network of keras.applications."""
    return partial(getattr(keras.applications, name), include_top=False, **options)


def cut_before(layer: str) -> Callable[[keras.Model], keras.Model]:
    """Makes the function that drops what a model does before a layer."""

    def cut(model: keras.Model) -> keras.Model:
        rest = keras.Model(model.get_layer(layer).input, model.output, name=model.name)
        # A copy: a layer's `output` is its first, in the whole model, to which `rest.input` does not lead.
        copy = keras.models.clone_model(rest)
        copy.set_weights(rest.get_weights())
        return copy

    return cut


def cut_after(layer: str) -> Callable[[keras.Model], keras.Model]:
    """Makes the function that drops what a model does after a layer."""

    def cut(model: keras.Model) -> keras.Model:
        return keras.Model(model.input, model.get_layer(layer).output, name=model.name)

    return cut


def resnet_v2(filters: tuple[int, ...], blocks: tuple[int, ...]) -> Builder:
    """Returns the builder of keras-cv's ResNetV2 of basic blocks."""

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
    """Returns the builder of keras-cv's CSPDarkNet; an odd image is padded with zeros."""

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
    """Returns the builder of keras-cv's Mix Transformer, the encoder of SegFormer (arXiv:2105.15203).

    Images are padded with zeros to a multiple of 32 px.
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
    """Returns a builder that pads images to a multiple of so many pixels where they are none."""

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
