"""The Keras backbones that members are made of, behind one dict.

A backbone takes images [n, size, size, channels] in [0, 1] and gives a feature map. The intensity
scale that its weights expect is applied inside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from lumbar_tf.models.architectures import (
    Builder,
    applications,
    csp_darknet,
    cut_after,
    cut_before,
    densenet,
    mix_transformer,
    resnet_v2,
)
from lumbar_tf.models.input_scale import OVER_128, SYMMETRIC, TORCH, InputScale
from lumbar_tf.models.pretrained import build_pretrained, fold_colours


def _unchanged(model: keras.Model) -> keras.Model:
    return model


@dataclass(frozen=True)
class Backbone:
    """How one backbone is made.

    Attributes:
        build: takes `input_shape` and `weights` (None or "imagenet") and returns the headless model.
        scale: from [0, 1] to what its weights expect.
        has_imagenet: whether `--weights=imagenet` exists for it.
        finish: what is done to the model once its weights are in.
        min_side_px: smallest image that it takes.
    """

    build: Builder
    scale: InputScale
    has_imagenet: bool = True
    finish: Callable[[keras.Model], keras.Model] = _unchanged
    min_side_px: int = 32


def _from_nothing(build: Builder, *, min_side_px: int = 16) -> Backbone:
    """A backbone of keras-cv: there are no weights for it without its network access."""
    return Backbone(build, SYMMETRIC, has_imagenet=False, min_side_px=min_side_px)


_BARE: dict[str, Any] = {"include_preprocessing": False}

BACKBONES: dict[str, Backbone] = {
    "mobilenet_v2": Backbone(applications("MobileNetV2"), SYMMETRIC),
    # The same weights without the last stage: finer maps and a quarter of the parameters. What is worth
    # taking over to medical images are the early layers (Raghu et al. 2019, "Transfusion", arXiv:1902.07208).
    "mobilenet_v2_stride16": Backbone(
        applications("MobileNetV2"), SYMMETRIC, finish=cut_after("block_12_add")
    ),
    "mobilenet_v3_small": Backbone(applications("MobileNetV3Small", **_BARE), SYMMETRIC),
    "mobilenet_v3_large": Backbone(applications("MobileNetV3Large", **_BARE), SYMMETRIC),
    # Keras' EfficientNetB0 scales inside, and differently with its own download than with a file of the same
    # weights. Together its layers are the `torch` scale, so they are left out and that is used.
    "efficientnet_b0": Backbone(applications("EfficientNetB0"), TORCH, finish=cut_before("stem_conv_pad")),
    "efficientnet_v2_b0": Backbone(applications("EfficientNetV2B0", **_BARE), TORCH),
    "efficientnet_v2_s": Backbone(applications("EfficientNetV2S", **_BARE), OVER_128),
    "densenet121": Backbone(applications("DenseNet121"), TORCH),
    "resnet50_v2": Backbone(applications("ResNet50V2"), SYMMETRIC),
    "convnext_tiny": Backbone(applications("ConvNeXtTiny", **_BARE), TORCH),
    "convnext_small": Backbone(applications("ConvNeXtSmall", **_BARE), TORCH),
    "resnet18_v2": _from_nothing(resnet_v2((64, 128, 256, 512), (2, 2, 2, 2))),
    "resnet34_v2": _from_nothing(resnet_v2((64, 128, 256, 512), (3, 4, 6, 3))),
    "csp_darknet_s": _from_nothing(csp_darknet((64, 128, 256, 512), (1, 3, 3, 1))),
    # At 32 px its last stage would be a single pixel, which keras-cv cannot build.
    "mit_b0": _from_nothing(mix_transformer((2, 2, 2, 2), (32, 64, 160, 256)), min_side_px=33),
    # Narrow ones, for a laptop and for small synthetic cohorts.
    "densenet_narrow": _from_nothing(densenet((2, 3, 3), 16)),
    "csp_darknet_narrow": _from_nothing(csp_darknet((16, 32, 64, 96), (1, 1, 1, 1))),
}


def build_backbone(name: str, *, size_px: int, weights: str = "none", channels: int = 3) -> keras.Model:
    """Builds a headless backbone.

    Args:
        name: a key of `BACKBONES`.
        size_px: edge of the square input.
        weights: `none`, `imagenet` (downloads, so only ever on an explicit wish) or a file that
            `keras.Model.load_weights` reads; given weights are those of three channels.
        channels: 1 or 3. With given weights and 1, the first kernel is summed over its channels, so
            that the answer is that of the grey image repeated; see `fold_colours`.

    Returns:
        A functional model without the scaling layer; see `scale_layer`.

    Raises:
        ValueError: an unknown name, an image that is too small for it, or weights that do not exist, do
            not fit or cannot be fetched.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}. Received: {name!r}.")
    backbone = BACKBONES[name]
    if size_px < backbone.min_side_px:
        raise ValueError(f"{name} takes images of at least {backbone.min_side_px} px. Received: {size_px}.")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3. Received: {channels}.")
    if weights == "imagenet" and not backbone.has_imagenet:
        raise ValueError(f"There are no ImageNet weights for {name}. Use weights=none or a file.")
    shape = (size_px, size_px, channels)
    if weights == "none":
        return backbone.finish(backbone.build(input_shape=shape, weights=None))
    model = backbone.finish(build_pretrained(name, backbone.build, (size_px, size_px, 3), weights))
    if channels == 3:
        return model
    grey = backbone.finish(backbone.build(input_shape=shape, weights=None))
    fold_colours(model, grey, backbone.scale)
    return grey


def scale_layer(name: str, channels: int = 3) -> keras.Layer:
    """Returns the layer from [0, 1] to what the backbone's weights expect."""
    return BACKBONES[name].scale.layer(channels)


def feature_pyramid(model: keras.Model, size_px: int) -> dict[int, Any]:
    """Returns the last feature map at each stride 2, 4, 8, ... of a backbone.

    Args:
        model: from `build_backbone`.
        size_px: its input edge, a multiple of the largest stride.

    Returns:
        Stride to symbolic tensor [n, size/stride, size/stride, channels].
    """
    pyramid: dict[int, Any] = {}
    # Squeeze-and-excitation pools to one pixel on its side paths: that is no level of the pyramid.
    largest = size_px // model.output.shape[1]
    for layer in model.layers[1:]:
        output = layer.output
        if isinstance(output, list) or len(output.shape) != 4 or output.shape[1] is None:
            continue
        stride, rest = divmod(size_px, output.shape[1])
        if rest == 0 and 2 <= stride <= largest and stride & (stride - 1) == 0:
            pyramid[stride] = output
    return dict(sorted(pyramid.items()))


def prepare_batch_norm(model: keras.Model, *, momentum: float, is_frozen: bool) -> None:
    """Sets how batch normalisation learns.

    Args:
        model: from `build_backbone`.
        momentum: of the running mean and variance.
        is_frozen: keep the statistics, scale and shift that the weights came with.
    """
    # keras-cv's blocks are layers that hold layers, so `model.layers` alone shows 7 of CSPDarkNet's 27.
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
            layer.trainable = not is_frozen
