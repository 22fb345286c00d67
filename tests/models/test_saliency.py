"""Maps are held against what a network without secrets must say, and against finite differences."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import CropConfig, GraderConfig, TrainingConfig
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import FINDINGS, Family, Plane
from lumbar_tf.models.backbones import build_backbone
from lumbar_tf.models.grader import build_grader
from lumbar_tf.models.saliency import SplitGrader, cut_backbone

AXIAL = CropLayout(Plane.AXIAL_T2, (Family.CANAL, Family.SUBARTICULAR))
CANAL = CropLayout(Plane.SAGITTAL_T2, (Family.CANAL,))


def _config(layout: CropLayout, num_slices: int, **changes: Any) -> GraderConfig:
    return GraderConfig(
        backbones=("csp_darknet_narrow",),
        targets=layout.targets,
        crop=CropConfig(side_mm=40.0, side_px=48, num_slices=num_slices),
        training=TrainingConfig(epochs=1, batch_studies=2, learning_rate=1e-3),
        **changes,
    )


def _inputs(layout: CropLayout, slices: int) -> dict[str, tf.Tensor]:
    generator, crops = np.random.default_rng(1), len(layout.sides)
    mask = generator.random((2, crops, slices)) < 0.8
    mask[..., slices // 2] = True
    mask[0, 3] = False
    image = generator.random((2, crops, slices, 48, 48)) * mask[..., None, None]
    values = {"image": image, "offset_mm": generator.normal(0, 4, mask.shape) * mask}
    return {
        "mask": tf.constant(mask),
        **{name: tf.constant(value, tf.float32) for name, value in values.items()},
    }


def _odds(logits: tf.Tensor) -> np.ndarray:
    shares = tf.nn.softmax(tf.cast(logits, tf.float64)).numpy()
    return np.log(shares[..., 1:].sum(axis=-1) / shares[..., 0])


def test_a_grader_that_counts_bright_pixels_is_moved_by_the_bright_pixels() -> None:
    """Its log-odds are 3 times the crop's mean: the map must be 3 times the image, cell by cell."""
    given = {
        "image": keras.Input((5, 1, 8, 8), name="image"),
        "mask": keras.Input((5, 1), name="mask", dtype="bool"),
        "offset_mm": keras.Input((5, 1), name="offset_mm"),
    }
    pixel = keras.Input((8, 8, 1))
    same = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones")(pixel)
    images = keras.layers.Rescaling(1.0)(keras.ops.reshape(given["image"], (-1, 8, 8, 1)))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.Model(pixel, same)(images))
    mean = keras.ops.reshape(pooled, (-1, 5, 1))
    # Equal logits of the two sick grades: their log-odds are 3 mean + ln 2.
    model = keras.Model(given, keras.ops.concatenate([0 * mean, 3 * mean, 3 * mean], axis=-1))
    image = np.random.default_rng(0).random((2, 5, 1, 8, 8)).astype(np.float32)
    split = SplitGrader(model, CANAL, min_cells=8)
    nothing = tf.zeros((2, 5, 1))
    logits, parts = split.logits_and_saliency(tf.constant(image), tf.ones((2, 5, 1), tf.bool), nothing)
    np.testing.assert_allclose(_odds(logits), 3 * image.mean(axis=(2, 3, 4)) + np.log(2), rtol=1e-5)
    np.testing.assert_allclose(parts[:, 0], 3 * image, rtol=1e-4)


@pytest.mark.parametrize(
    ("layout", "slices", "changes"),
    [
        (AXIAL, 3, {}),
        # Levels see each other here: only its own finding counts in a crop's map.
        (AXIAL, 3, {"level_context": True, "pooling": "mean"}),
        (CANAL, 1, {}),
    ],
)
def test_the_mean_of_a_map_is_what_the_slice_adds(
    layout: CropLayout, slices: int, changes: dict[str, Any]
) -> None:
    """Against finite differences: the features of one slice of one crop are scaled up and down a little."""
    keras.utils.set_random_seed(0)
    model = build_grader("csp_darknet_narrow", _config(layout, slices, **changes), layout)
    for weight in model.weights:
        if "context_out" in weight.path and "kernel" in weight.path:
            weight.assign(np.random.default_rng(2).normal(0, 0.3, weight.shape))
    inputs = _inputs(layout, slices)
    split = SplitGrader(model, layout)
    logits, parts = split.logits_and_saliency(**inputs)
    np.testing.assert_allclose(logits, model(inputs, training=False), atol=1e-5)
    features = split.front(inputs["image"])
    shape = (2, len(layout.sides), slices)
    assert parts.shape == (2, len(layout.targets), *shape[1:], 6, 6)

    def odds_with(place: tuple[int, ...], step: float) -> np.ndarray:
        factor = np.ones(shape, np.float32)
        factor[place] += step
        scaled = features * factor.reshape(-1, 1, 1, 1)
        averages = split.average(split.rest(scaled))
        return _odds(split.heads([averages, inputs["mask"], inputs["offset_mm"]]))

    for study, crop, number in [(0, 2, 0), (1, 4, slices // 2), (1, 1, slices - 1)]:
        place = (study, crop, number)
        slope = (odds_with(place, 0.01) - odds_with(place, -0.01))[study] / 0.02
        for row, (finding_row, views) in enumerate(zip(layout.rows, layout.row_views, strict=True)):
            if views[crop]:
                family = layout.targets.index(FINDINGS[finding_row].condition.family)
                said = float(tf.reduce_mean(parts[study, family, crop, number]))
                assert said == pytest.approx(slope[row], abs=2e-3 * max(1.0, np.abs(slope).max()))
    # A slice that is not there adds nothing.
    assert not np.any(np.abs(parts.numpy()[:, 0][~inputs["mask"].numpy()]) > 1e-6)


@pytest.mark.parametrize("name", ["csp_darknet_narrow", "densenet_narrow"])
def test_the_two_halves_are_the_whole(name: str) -> None:
    base = build_backbone(name, size_px=48)
    front, rest = cut_backbone(base)
    # 48 px at stride 8; the last maps have 2 and 3 cells.
    assert front.output.shape[1:3] == (6, 6)
    image = np.random.default_rng(0).random((2, 48, 48, 3), np.float32)
    np.testing.assert_array_equal(rest(front(image)), base(image))
    assert {id(weight) for weight in base.weights} == {
        id(weight) for weight in (*front.weights, *rest.weights)
    }


def _bypassed() -> keras.Model:
    """Stride 2, 4 and 8, with a way around the map of stride 4, which is padded at last."""
    image = keras.Input((32, 32, 1))
    half = keras.layers.Conv2D(2, 3, strides=2, padding="same", name="half")(image)
    quarter = keras.layers.Conv2D(2, 3, strides=2, padding="same", name="quarter")(half)
    around = keras.layers.AveragePooling2D(4)(half)
    joined = keras.layers.Add(name="joined")([keras.layers.AveragePooling2D(2)(quarter), around])
    padded = keras.layers.ZeroPadding2D(3, name="padded")(joined)
    return keras.Model(image, keras.layers.Conv2D(2, 3, strides=4, name="last")(padded))


@pytest.mark.parametrize(("cells", "name"), [(9, "half"), (8, "half"), (4, "joined"), (1, "last")])
def test_all_paths_lead_through_the_cut_and_it_is_not_padded(cells: int, name: str) -> None:
    front, _ = cut_backbone(_bypassed(), min_cells=cells)
    assert front.layers[-1].name == name


def test_where_no_map_is_so_fine_the_cut_is_at_the_end() -> None:
    base = _bypassed()
    front, rest = cut_backbone(base, min_cells=20)
    assert front.layers[-1].name == "last"
    image = np.ones((1, 32, 32, 1), np.float32)
    np.testing.assert_array_equal(rest(front(image)), base(image))
