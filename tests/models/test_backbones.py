from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

from lumbar_tf.models.architectures import InputScale
from lumbar_tf.models.backbones import (
    BACKBONES,
    build_backbone,
    feature_pyramid,
    fold_colours,
    prepare_batch_norm,
    scale_layer,
)
from lumbar_tf.models.keras_compat import flatten_layers

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL = ("mobilenet_v2", "csp_darknet_narrow")


def _named_backbones(values: object) -> set[str]:
    """Every `backbone: name` and `backbones: [names]` anywhere in a YAML document."""
    if isinstance(values, list):
        return set().union(*map(_named_backbones, values))
    if not isinstance(values, dict):
        return set()
    found = set(values.get("backbones", ())) | ({values["backbone"]} if "backbone" in values else set())
    return found.union(*map(_named_backbones, values.values()))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_backbone_that_a_configuration_names_is_known(path: Path) -> None:
    assert _named_backbones(yaml.safe_load(path.read_text())) <= set(BACKBONES)


@pytest.mark.parametrize("name", [*SMALL, pytest.param("efficientnet_b0", marks=pytest.mark.slow)])
def test_a_backbone_gives_finite_features_at_powers_of_two(name: str) -> None:
    model = build_backbone(name, size_px=64)
    pyramid = feature_pyramid(model, 64)
    assert list(pyramid) == [2, 4, 8, 16, 32]
    outputs = keras.Model(model.input, list(pyramid.values()))(
        np.random.default_rng(0).random((2, 64, 64, 3))
    )
    for stride, output in zip(pyramid, outputs, strict=True):
        assert output.shape[:3] == (2, 64 // stride, 64 // stride)
        assert np.isfinite(output).all()
    # The deepest one is the backbone's own answer.
    assert outputs[-1].shape[1:] == model.output.shape[1:]


def test_side_paths_that_pool_to_one_pixel_are_no_level_of_the_pyramid() -> None:
    model = build_backbone("mobilenet_v3_small", size_px=128)
    assert list(feature_pyramid(model, 128)) == [2, 4, 8, 16, 32]


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_takes_any_size_and_one_or_three_channels(name: str, channels: int) -> None:
    size = 51
    model = build_backbone(name, size_px=size, channels=channels)
    image = np.random.default_rng(0).random((2, size, size, channels)).astype(np.float32)
    features = model(scale_layer(name, channels)(image), training=False)
    assert model.input.shape == (None, size, size, channels)
    assert features.shape == (2, *model.output.shape[1:])
    assert features.shape.rank == 4
    assert np.isfinite(features).all()
    assert np.abs(features[0] - features[1]).max() > 0


def _grey_and_colour(name: str, folder: Path) -> tuple[keras.Model, keras.Model]:
    """Networks for one and three channels with the same weights, whose biases and statistics are not fresh.

    Only the smallest one takes the way through a file: building the larger ones takes seconds each time.
    """
    rng, backbone = np.random.default_rng(0), BACKBONES[name]
    keras.utils.set_random_seed(0)
    source = backbone.build(input_shape=(64, 64, 3), weights=None)
    for weight in source.weights:
        if weight.name in ("bias", "beta", "gamma", "moving_mean"):
            weight.assign(np.asarray(weight) + rng.normal(0, 0.1, weight.shape))
    if name == "csp_darknet_narrow":
        path = folder / "colour.weights.h5"
        source.save_weights(path)
        grey, colour = (
            build_backbone(name, size_px=64, weights=str(path), channels=channels) for channels in (1, 3)
        )
        return grey, colour
    colour = backbone.finish(source)
    grey = build_backbone(name, size_px=64, channels=1)
    fold_colours(colour, grey, backbone.scale)
    return grey, colour


def _ask(model: keras.Model, name: str, output: Any) -> np.ndarray:
    """What a layer makes of two grey images."""
    channels = model.input.shape[-1]
    image = np.random.default_rng(2).random((2, 64, 64, 1)).astype(np.float32)
    scaled = scale_layer(name, channels)(np.repeat(image, channels, axis=-1))
    return np.asarray(keras.Model(model.input, output)(scaled, training=False))


@pytest.mark.parametrize(
    "name",
    [
        "csp_darknet_narrow",
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_large", marks=pytest.mark.slow),
        pytest.param("efficientnet_v2_s", marks=pytest.mark.slow),
        pytest.param("resnet50_v2", marks=pytest.mark.slow),
        pytest.param("resnet18_v2", marks=pytest.mark.slow),
        pytest.param("mit_b0", marks=pytest.mark.slow),
        # Its colours have scales of their own, but its first kernel never reaches beyond the image.
        pytest.param("convnext_tiny", marks=pytest.mark.slow),
    ],
)
def test_one_channel_answers_as_the_grey_image_repeated(name: str, tmp_path: Path) -> None:
    models = _grey_and_colour(name, tmp_path)
    # Fresh weights fade with depth, so the early map is the one that could differ; not where the last layer
    # normalises each image for itself.
    is_late = name in ("mit_b0", "convnext_tiny")
    early = [model.output if is_late else feature_pyramid(model, 64)[2] for model in models]
    grey, colour = (_ask(model, name, output) for model, output in zip(models, early, strict=True))
    # What the comparison allows is a thousandth of what the image changes.
    change = np.abs(colour[0] - colour[1]).max()
    assert change > 1e-3
    np.testing.assert_allclose(grey, colour, rtol=0, atol=1e-3 * change)
    last = [_ask(model, name, model.output) for model in models]
    np.testing.assert_allclose(*last, atol=1e-4)


@pytest.mark.slow
def test_trained_weights_answer_one_channel_as_three(shared_data: Path) -> None:
    path = str(shared_data / "weights" / "mobilenet_v2.imagenet.notop.weights.h5")
    grey, colour = (
        build_backbone("mobilenet_v2", size_px=64, weights=path, channels=channels) for channels in (1, 3)
    )
    one, three = (_ask(model, "mobilenet_v2", model.output) for model in (grey, colour))
    assert np.abs(three[0] - three[1]).max() > 0.1
    np.testing.assert_allclose(one, three, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_v2_b0", "densenet121"])
def test_one_channel_differs_only_at_the_border_where_colours_have_their_own_scale(
    name: str, tmp_path: Path
) -> None:
    maps = []
    for model in _grey_and_colour(name, tmp_path):
        norm = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
        maps.append(_ask(model, name, norm.output))
    # Kernels of at most 7 px and stride 2: two pixels of the map at each edge look beyond the image.
    np.testing.assert_allclose(maps[0][:, 2:-2, 2:-2], maps[1][:, 2:-2, 2:-2], atol=1e-4)
    assert np.abs(maps[1][0] - maps[1][1]).max() > 0.05


@pytest.mark.parametrize("use_bias", [True, False])
def test_colours_with_scales_of_their_own_are_folded_into_bias_or_normalisation(use_bias: bool) -> None:
    scale = InputScale((0.2, 0.5, 0.9), (0.3, 0.2, 0.1))

    def build(channels: int) -> keras.Model:
        layers = [
            keras.Input((8, 8, channels)),
            keras.layers.Conv2D(4, 3, use_bias=use_bias),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(5, 3, bias_initializer="normal"),
        ]
        return keras.Sequential(layers)

    colour, grey = build(3), build(1)
    image = np.random.default_rng(0).random((2, 8, 8, 1)).astype(np.float32)
    fold_colours(colour, grey, scale)
    np.testing.assert_allclose(
        grey(scale.layer(1)(image)), colour(scale.layer(3)(np.repeat(image, 3, axis=-1))), atol=1e-5
    )


def test_a_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> keras.Model:
        # Keras raises a bare Exception.
        raise Exception("URL fetch failure on https://example.org: None -- no network")

    monkeypatch.setitem(BACKBONES, "mobilenet_v2", replace(BACKBONES["mobilenet_v2"], build=fail))
    with pytest.raises(ValueError, match=r"mobilenet_v2 could not be downloaded.*no network.*--weights=FILE"):
        build_backbone("mobilenet_v2", size_px=32, weights="imagenet")


def test_images_that_are_too_small_and_odd_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mobilenet_v2 needs images of at least 32 px\. Received: 24"):
        build_backbone("mobilenet_v2", size_px=24)
    with pytest.raises(ValueError, match=r"channels must be 1 or 3\. Received: 2"):
        build_backbone("csp_darknet_narrow", size_px=32, channels=2)


def test_unknown_names_and_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"backbone must be one of mobilenet_v2.*'resnet_9000'"):
        build_backbone("resnet_9000", size_px=32)
    with pytest.raises(ValueError, match="no ImageNet weights for csp_darknet_narrow"):
        build_backbone("csp_darknet_narrow", size_px=32, weights="imagenet")
    with pytest.raises(ValueError, match=r"existing file.*absent\.weights\.h5"):
        build_backbone("csp_darknet_narrow", size_px=32, weights=str(tmp_path / "absent.weights.h5"))
    (tmp_path / "junk.weights.h5").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk\.weights\.h5 does not hold weights"):
        build_backbone("csp_darknet_narrow", size_px=32, weights=str(tmp_path / "junk.weights.h5"))


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.weights.h5"
    build_backbone("mobilenet_v2", size_px=32).save_weights(path)
    with pytest.raises(ValueError, match="does not hold weights of csp_darknet_narrow"):
        build_backbone("csp_darknet_narrow", size_px=32, weights=str(path))


def test_a_weights_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.weights.h5"
    first = build_backbone("csp_darknet_narrow", size_px=32)
    first.save_weights(path)
    again = build_backbone("csp_darknet_narrow", size_px=64, weights=str(path))
    for one, other in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_shortened_backbone_is_the_whole_ones_beginning_with_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "whole.weights.h5"
    whole = build_backbone("mobilenet_v2", size_px=64)
    whole.save_weights(path)
    short = build_backbone("mobilenet_v2_stride16", size_px=64, weights=str(path))
    assert short.output.shape == (None, 4, 4, 96)
    middle = keras.Model(whole.input, whole.get_layer("block_12_add").output)
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(short(image), middle(image), atol=1e-5)


def _batch_norms(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in flatten_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.mark.parametrize("is_frozen", [True, False])
def test_batch_normalisation_is_set_in_nested_models_too(is_frozen: bool) -> None:
    model = build_backbone("csp_darknet_narrow", size_px=32)
    before = len(model.trainable_variables)
    prepare_batch_norm(model, momentum=0.7, is_frozen=is_frozen)
    layers = _batch_norms(model)
    # The independent count: each has one moving mean.
    assert len(layers) == sum(variable.path.endswith("moving_mean") for variable in model.variables) > 10
    assert {layer.momentum for layer in layers} == {0.7}
    assert len(model.trainable_variables) == before - 2 * len(layers) * is_frozen
