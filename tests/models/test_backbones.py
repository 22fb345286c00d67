from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from lumbar_tf.models.backbones import (
    BACKBONES,
    build_backbone,
    feature_pyramid,
    prepare_batch_norm,
    scale_layer,
)

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


@pytest.mark.parametrize("name", SMALL)
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


def test_intensities_are_scaled_as_the_weights_expect() -> None:
    image = np.broadcast_to(np.array([0.0, 0.5, 1.0], np.float32), (1, 2, 2, 3))
    np.testing.assert_allclose(scale_layer("mobilenet_v2")(image)[0, 0, 0], [-1, 0, 1], atol=1e-6)
    expected = keras.applications.imagenet_utils.preprocess_input(image * 255, mode="torch")
    np.testing.assert_allclose(scale_layer("densenet121")(image), expected, atol=1e-5)


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


def _batch_norms(model: keras.Model) -> list[keras.Layer]:
    return [each for each in model._flatten_layers() if isinstance(each, keras.layers.BatchNormalization)]


@pytest.mark.parametrize("is_frozen", [True, False])
def test_batch_normalisation_is_set_in_nested_models_too(is_frozen: bool) -> None:
    model = build_backbone("csp_darknet_narrow", size_px=32)
    before = len(model.trainable_variables)
    prepare_batch_norm(model, momentum=0.7, is_frozen=is_frozen)
    layers = _batch_norms(model)
    # The independent count: each has one moving mean.
    assert len(layers) == sum(each.path.endswith("moving_mean") for each in model.variables) > 10
    assert {layer.momentum for layer in layers} == {0.7}
    assert len(model.trainable_variables) == before - 2 * len(layers) * is_frozen
