from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from lumbar_tf.config import LocalizerConfig, TrainingConfig
from lumbar_tf.dicom.geometry import patient_to_pixel
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.axial_localizer_inputs import (
    AXIAL_SIDES,
    AxialField,
    axial_field_spec,
    cut_axial_field,
    reachable_points,
    study_axial_field,
)
from lumbar_tf.inputs.crops import Warp, identity_warp
from lumbar_tf.inputs.slice_decoding import keep_slices
from lumbar_tf.labels import Condition, Level, Plane, Side, finding_index

CONFIG = LocalizerConfig(
    backbone="csp_darknet_narrow",
    side_mm=24.0,
    side_px=32,
    supersample=1,
    num_slices=3,
    max_distance_mm=6.0,
    training=TrainingConfig(epochs=1, batch_studies=1, learning_rate=1e-3),
)
Stacks = Callable[..., list[Slice]]
Records = Callable[[Plane, list[Slice]], dict[str, tf.Tensor]]


def _level_points() -> NDArray[np.float32]:
    """Points of five levels about the stack's middle; of the fourth nothing is known."""
    points = np.full((25, 3), np.nan, np.float32)
    for place, level in enumerate(Level):
        row = finding_index(Condition.SPINAL_CANAL_STENOSIS, level)
        points[row] = (1.0 - place, -2.0 + place, 9.0 - 4.5 * place)
    points[3] = np.nan
    return points


def _field(record: dict[str, tf.Tensor], warp: Warp | None = None) -> AxialField:
    kept = keep_slices(record, tf.range(tf.shape(record["slices/group"])[0]))
    anchors = tf.repeat(tf.constant(_level_points()[:5]), 2, axis=0)
    field = cut_axial_field(kept, anchors, config=CONFIG, warp=warp or identity_warp())
    return AxialField(*(each.numpy() for each in field))


def _warp() -> Warp:
    cosine, sine = np.cos(0.4), np.sin(0.4)
    return Warp(
        tf.constant([[cosine, -sine], [sine, cosine]], tf.float32) * 1.1, tf.constant([1.5, -2.0], tf.float32)
    )


def _positions(field: AxialField, crop: int, each: int) -> NDArray[np.float64]:
    """Where a crop's pixels lie: a plain reading of what `origin`, `right` and `down` mean, [h, w, 3]."""
    offset = np.arange(CONFIG.side_px) - (CONFIG.side_px - 1) / 2
    across = offset[:, None] * field.right[crop, each]
    return field.origin[crop, each] + across + offset[:, None, None] * field.down[crop, each]


@pytest.mark.parametrize("tilt", [0.0, 16.0])
@pytest.mark.parametrize("order", ["plain", "columns", "transposed"])
@pytest.mark.parametrize("is_warped", [False, True])
def test_every_pixel_shows_what_the_slices_hold_where_the_field_says_it_lies(
    make_stack: Stacks,
    store: Callable[[Slice, str], Slice],
    make_record: Records,
    tilt: float,
    order: str,
    is_warped: bool,
) -> None:
    """Through `imaging.geometry` and SciPy, which know nothing of crops: oblique, mirrored and warped."""
    slices = [store(each, order) for each in make_stack(Plane.AXIAL_T2, tilt=tilt)]
    record = make_record(Plane.AXIAL_T2, slices)
    field = _field(record, _warp() if is_warped else None)
    low, high = float(record["series/low"][0]), float(record["series/high"][0])
    known = _level_points()[:5]
    for crop, side in enumerate(AXIAL_SIDES):
        if crop // 2 == 3:
            assert not field.mask[crop].any()
            assert not field.image[crop].any()
            continue
        distances = [patient_to_pixel(each.geometry, known[crop // 2])[2] for each in slices]
        nearest = int(np.argmin(np.abs(distances)))
        assert field.right[crop, 1, 0] * (-1 if side is Side.RIGHT else 1) > 0
        for place in np.flatnonzero(field.mask[crop]):
            chosen = slices[nearest + place - 1]
            positions = _positions(field, crop, place).reshape(-1, 3)
            column, row, distance = np.transpose(
                [patient_to_pixel(chosen.geometry, each) for each in positions]
            )
            assert np.abs(distance).max() < 1e-3
            expected = map_coordinates(chosen.pixels, [row, column], order=1, cval=0.0)
            expected = np.clip((expected - low) / (high - low), 0, 1.5)
            inside = (
                (column > 0)
                & (row > 0)
                & (column < chosen.geometry.columns - 1)
                & (row < chosen.geometry.rows - 1)
            )
            assert inside.mean() > 0.9
            np.testing.assert_allclose(field.image[crop, place].ravel()[inside], expected[inside], atol=1e-3)
            assert field.offset_mm[crop, place] == pytest.approx(-distances[nearest + place - 1], abs=1e-3)


def test_a_finer_cut_is_averaged_and_lies_in_the_same_place(make_stack: Stacks, make_record: Records) -> None:
    record = make_record(Plane.AXIAL_T2, make_stack(Plane.AXIAL_T2, tilt=8.0))
    landmarks = tf.constant(_level_points())
    plain = study_axial_field(record, landmarks, CONFIG)
    fine = study_axial_field(record, landmarks, CONFIG.model_copy(update={"supersample": 3}))
    for name in ("mask", "offset_mm", "origin", "right", "down"):
        np.testing.assert_array_equal(plain[name], fine[name])
    # The scene is smooth: averages over a pixel are what is in its middle.
    np.testing.assert_allclose(fine["image"], plain["image"], atol=0.03)
    for name, spec in axial_field_spec(CONFIG).items():
        assert spec.is_compatible_with(plain[name]), name


@pytest.mark.parametrize("order", ["plain", "columns"])
def test_a_mirrored_patient_is_the_same_seen_from_the_other_side(
    make_stack: Stacks,
    store: Callable[[Slice, str], Slice],
    mirror: Callable[[Slice], Slice],
    make_record: Records,
    order: str,
) -> None:
    slices = make_stack(Plane.AXIAL_T2, tilt=12.0)
    mirrored = [store(mirror(each), order) for each in slices]
    landmarks = _level_points()
    turn = np.float32([-1, 1, 1])
    plain = study_axial_field(make_record(Plane.AXIAL_T2, slices), tf.constant(landmarks), CONFIG)
    other = study_axial_field(make_record(Plane.AXIAL_T2, mirrored), tf.constant(landmarks * turn), CONFIG)
    swapped = np.arange(10).reshape(5, 2)[:, ::-1].ravel()
    for name, tolerance in (("image", 2e-4), ("mask", 0), ("offset_mm", 1e-4)):
        first, second = (each[name].numpy().astype(np.float32) for each in (plain, other))
        np.testing.assert_allclose(second[swapped], first, atol=tolerance)
    known = plain["mask"].numpy()
    for name in ("origin", "right", "down"):
        second = other[name].numpy()[swapped] * turn
        np.testing.assert_allclose(second[known], plain[name].numpy()[known], atol=1e-3)
    image = plain["image"].numpy()
    assert np.abs(image[0] - image[1]).mean() > 0.05  # the two sides do not look alike


def test_points_outside_of_their_crops_are_nothing_to_learn_from(
    make_stack: Stacks, make_record: Records
) -> None:
    slices = make_stack(Plane.AXIAL_T2, tilt=10.0)
    field = _field(make_record(Plane.AXIAL_T2, slices))
    normal = slices[0].geometry.normal
    points = field.origin[:, 1].copy()
    right, down = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (field.right, field.down))
    points[0] += 11.8 * right[0, 1] - 11.8 * down[0, 1]  # within 12 mm along both axes
    points[1] += 12.2 * right[1, 1]
    points[2] += (4.0 + 2.3) * normal  # 2.3 mm beyond the last slice: half a gap, and a bit
    points[4] += (4.0 + 2.7) * normal
    points[5] = np.nan
    kept = reachable_points(field, tf.constant(points.astype(np.float32))).numpy()
    is_kept = np.isfinite(kept).all(axis=-1)
    # 1, 4: out of reach; 5: nobody annotated; 6, 7: the level is unknown.
    assert np.flatnonzero(~is_kept).tolist() == [1, 4, 5, 6, 7]
    np.testing.assert_array_equal(kept[is_kept], points[is_kept].astype(np.float32))
