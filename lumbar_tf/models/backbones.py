"""The Keras backbones that members are made of, behind one dict.

A backbone takes images [n, size, size, 3] in [0, 1] and gives a feature map. The intensity scale
that its weights expect is applied inside. keras-cv is frozen upstream and its named classes reach for the
network even without weights, so its base classes are built here from `stackwise_*` alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras

#: ImageNet mean and variance of RGB in [0, 1], as `keras.applications.imagenet_utils` uses in `torch` mode.
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_VARIANCE = (0.229**2, 0.224**2, 0.225**2)


def _to_symmetric() -> keras.Layer:
    """[0, 1] to [-1, 1]: MobileNet, and all that start from nothing."""
    return keras.layers.Rescaling(2.0, -1.0)


def _to_torch() -> keras.Layer:
    """[0, 1] to zero mean and unit variance on ImageNet: DenseNet, ConvNeXt, EfficientNetV2-B."""
    return keras.layers.Normalization(mean=_TORCH_MEAN, variance=_TORCH_VARIANCE)


@dataclass(frozen=True)
class Backbone:
    """How one backbone is made.

    Attributes:
        build: takes `input_shape` and `weights` (None or "imagenet") and returns the headless model.
        scale: makes the layer that turns [0, 1] into what `build` expects.
        has_imagenet: whether `--weights=imagenet` exists for it.
    """

    build: Callable[..., keras.Model]
    scale: Callable[[], keras.Layer]
    has_imagenet: bool


def _applications(name: str, **options: Any) -> Callable[..., keras.Model]:
    return partial(getattr(keras.applications, name), include_top=False, **options)


def _resnet_v2(filters: tuple[int, ...], blocks: tuple[int, ...]) -> Callable[..., keras.Model]:
    def build(input_shape: tuple[int, int, int], weights: None) -> keras.Model:
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


def _csp_darknet(channels: tuple[int, ...], depth: tuple[int, ...]) -> Callable[..., keras.Model]:
    def build(input_shape: tuple[int, int, int], weights: None) -> keras.Model:
        import keras_cv

        return keras_cv.models.CSPDarkNetBackbone(
            stackwise_channels=list(channels),
            stackwise_depth=list(depth),
            include_rescaling=False,
            use_depthwise=False,
            input_shape=input_shape,
        )

    return build


def _densenet(repeats: tuple[int, ...], growth: int) -> Callable[..., keras.Model]:
    def build(input_shape: tuple[int, int, int], weights: None) -> keras.Model:
        import keras_cv

        return keras_cv.models.DenseNetBackbone(
            stackwise_num_repeats=list(repeats),
            include_rescaling=False,
            growth_rate=growth,
            input_shape=input_shape,
        )

    return build


BACKBONES: dict[str, Backbone] = {
    "mobilenet_v2": Backbone(_applications("MobileNetV2"), _to_symmetric, True),
    "mobilenet_v3_small": Backbone(
        _applications("MobileNetV3Small", include_preprocessing=False), _to_symmetric, True
    ),
    "efficientnet_v2_b0": Backbone(
        _applications("EfficientNetV2B0", include_preprocessing=False), _to_torch, True
    ),
    "densenet121": Backbone(_applications("DenseNet121"), _to_torch, True),
    "convnext_tiny": Backbone(_applications("ConvNeXtTiny", include_preprocessing=False), _to_torch, True),
    "resnet18_v2": Backbone(_resnet_v2((64, 128, 256, 512), (2, 2, 2, 2)), _to_symmetric, False),
    "csp_darknet_s": Backbone(_csp_darknet((64, 128, 256, 512), (1, 3, 3, 1)), _to_symmetric, False),
    # Narrow ones, for a laptop and for small synthetic cohorts.
    "densenet_narrow": Backbone(_densenet((2, 3, 3), 16), _to_symmetric, False),
    "csp_darknet_narrow": Backbone(_csp_darknet((16, 32, 64, 96), (1, 1, 1, 1)), _to_symmetric, False),
}


def build_backbone(name: str, *, size_px: int, weights: str = "none") -> keras.Model:
    """Builds a headless backbone.

    Args:
        name: a key of `BACKBONES`.
        size_px: edge of the square input.
        weights: `none`, `imagenet` (downloads, so only ever on an explicit wish) or a file that
            `keras.Model.load_weights` reads.

    Returns:
        A functional model without the scaling layer; see `scale_layer`.

    Raises:
        ValueError: an unknown name, weights that do not exist, do not fit or cannot be fetched.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}. Received: {name!r}.")
    backbone = BACKBONES[name]
    if weights == "imagenet" and not backbone.has_imagenet:
        raise ValueError(f"There are no ImageNet weights for {name}. Use weights=none or a file.")
    shape = (size_px, size_px, 3)
    if weights in ("none", "imagenet"):
        try:
            return backbone.build(input_shape=shape, weights=None if weights == "none" else weights)
        except Exception as error:
            if weights == "none":
                raise
            # Keras raises a bare Exception when a download fails.
            raise ValueError(
                f"The ImageNet weights of {name} could not be downloaded ({error}). Without a network, "
                "pass the path of a weights file (--weights=FILE) or --weights=none."
            ) from error
    return _load_file(backbone.build(input_shape=shape, weights=None), name, Path(weights))


def _load_file(model: keras.Model, name: str, path: Path) -> keras.Model:
    if not path.is_file():
        raise ValueError(f"weights must be none, imagenet or an existing file. Received: {path}.")
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{path} does not hold weights of {name}: {error}") from error
    return model


def scale_layer(name: str) -> keras.Layer:
    """Returns the layer from [0, 1] to what the backbone's weights expect."""
    return BACKBONES[name].scale()


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
