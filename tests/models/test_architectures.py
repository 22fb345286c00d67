from typing import Any

import keras
import numpy as np
import pytest

from lumbar_tf.models.backbones import build_backbone, scale_layer

IMAGE = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("mobilenet_v2", keras.applications.mobilenet_v2),
        ("densenet121", keras.applications.densenet),
        ("resnet50_v2", keras.applications.resnet_v2),
    ],
)
def test_intensities_are_scaled_as_keras_preprocesses_them(name: str, module: object) -> None:
    expected = module.preprocess_input(IMAGE.copy())  # type: ignore[attr-defined]
    np.testing.assert_allclose(scale_layer(name)(IMAGE / 255), expected, atol=1e-5)


def _own_scaling(model: keras.Model) -> keras.Model:
    """The part of a Keras network before its first convolution (or the padding for it)."""
    last = None
    for layer in model.layers[1:]:
        if not isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)):
            break
        last = layer
    return keras.Model(model.input, last.output)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("mobilenet_v3_small", keras.applications.MobileNetV3Small),
        ("mobilenet_v3_large", keras.applications.MobileNetV3Large),
        ("efficientnet_v2_b0", keras.applications.EfficientNetV2B0),
        pytest.param("efficientnet_v2_s", keras.applications.EfficientNetV2S, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", keras.applications.ConvNeXtTiny, marks=pytest.mark.slow),
        pytest.param("convnext_small", keras.applications.ConvNeXtSmall, marks=pytest.mark.slow),
    ],
)
def test_intensities_are_scaled_as_keras_own_network_scales_them(name: str, build: Any) -> None:
    image = np.tile(IMAGE, (1, 4, 4, 1))
    own = _own_scaling(build(include_top=False, weights=None, input_shape=(32, 32, 3)))
    np.testing.assert_allclose(scale_layer(name)(image / 255), own(image), atol=1e-5)


def test_efficientnet_b0_is_scaled_as_keras_own_network_with_its_imagenet_weights() -> None:
    # The released file holds this mean and variance for the layer `normalization`, and Keras adds a layer
    # for its own download (IMAGENET_STDDEV_RGB and its comment in keras/src/applications/efficientnet.py).
    deviation = [0.229, 0.224, 0.225]
    full = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    image = np.tile(IMAGE, (1, 4, 4, 1))
    own = keras.layers.Normalization(mean=[0.485, 0.456, 0.406], variance=deviation)(image / 255)
    own = keras.layers.Rescaling([1 / np.sqrt(value) for value in deviation])(own)
    np.testing.assert_allclose(scale_layer("efficientnet_b0")(image / 255), own, atol=1e-5)
    # What is left out of our model is that scaling and nothing else.
    left_out = [type(layer) for layer in full.layers[1:3]]
    assert left_out == [keras.layers.Rescaling, keras.layers.Normalization]
    ours = build_backbone("efficientnet_b0", size_px=32)
    assert [type(layer) for layer in ours.layers[1:]] == [type(layer) for layer in full.layers[3:]]


def test_one_channel_is_scaled_by_the_mean_of_three() -> None:
    grey = np.full((1, 2, 2, 1), 0.3, np.float32)
    np.testing.assert_allclose(scale_layer("mobilenet_v2", 1)(grey), -0.4, atol=1e-6)
    np.testing.assert_allclose(scale_layer("densenet121", 1)(grey), (0.3 - 0.449) / 0.226, atol=1e-5)
