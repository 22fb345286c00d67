import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import FINDINGS, Condition, Flag, Plane, Severity
from lumbar_tf.monitoring.quantities import (
    IMAGE_QUANTITIES,
    measure_answer,
    measure_images,
    measure_probabilities,
)
from lumbar_tf.records.schema import PixelEncoding, encode_plane

RNG = np.random.default_rng(0)
PROBABILITY = RNG.dirichlet((1, 1, 1), 25).astype(np.float32)


def test_each_finding_has_two_grades_and_the_third_follows() -> None:
    found = measure_probabilities(PROBABILITY, np.zeros((0, 25, 3)))
    for row, finding in enumerate(FINDINGS):
        for grade in (Severity.NORMAL_MILD, Severity.SEVERE):
            value = found[f"probability/{finding.name}/{grade.column}"]
            assert value == pytest.approx(float(PROBABILITY[row, grade]), abs=1e-6)
    assert sum(name.startswith("probability/") for name in found) == 50


def test_disagreement_is_the_standard_deviation_of_expected_grades() -> None:
    members = np.full((3, 25, 3), np.nan)
    sure = np.eye(3)
    members[0, :10], members[1, :10] = sure[0], sure[2]  # canal and left foramen: grades 0 and 2
    members[1, 10:15] = members[2, 10:15] = sure[1]  # right foramen: both 1
    members[0, 15] = sure[0]  # left subarticular: one member alone
    found = measure_probabilities(PROBABILITY, members)
    expected = [1.0, 1.0, 0.0, None, None]
    assert [found[f"disagreement/{condition.value}"] for condition in Condition] == expected


def test_an_answer_without_images_or_points_is_measured_too() -> None:
    flags = np.zeros((25, len(Flag)), np.bool_)
    flags[:5, list(Flag).index(Flag.PRIOR_ONLY)] = True
    landmarks = np.full((25, 3), np.nan)
    found = measure_answer(PROBABILITY, np.full((2, 25, 3), np.nan), landmarks, flags, {})
    assert found["flags/prior_only"] == 0.2
    assert found["flags/no_landmark"] == 0.0
    assert found["landmarks/found"] == 0
    assert found["landmarks/level_spacing_mm"] is None
    for plane in Plane:
        assert found[f"images/{plane.value}/present"] == 0
        assert found[f"images/{plane.value}/sharpness"] is None
    json.dumps(found, allow_nan=False)


def test_landmarks_give_their_number_and_spacing_but_no_position() -> None:
    landmarks = np.full((25, 3), np.nan)
    landmarks[:5] = np.array([[4.0, -7.0, 1000.0 - 35.0 * level] for level in range(5)])
    flags = np.zeros((25, len(Flag)), np.bool_)
    here, there = (
        measure_answer(PROBABILITY, np.full((1, 25, 3), np.nan), points, flags, {})
        for points in (landmarks, landmarks + [500.0, 20.0, -300.0])
    )
    assert (here["landmarks/found"], here["landmarks/level_spacing_mm"]) == (5, 35)
    assert here == there


def test_other_outputs_are_kept_as_mean_and_maximum() -> None:
    doubt = np.full(25, np.nan)
    doubt[:2] = 0.25, 0.75
    flags = np.zeros((25, len(Flag)), np.bool_)
    extras = {"doubt": doubt, "nothing": np.full((25, 2), np.nan)}
    found = measure_answer(
        PROBABILITY, np.full((1, 25, 3), np.nan), np.zeros((25, 3)), flags, {}, extras=extras
    )
    assert (found["outputs/doubt/mean"], found["outputs/doubt/max"]) == (0.5, 0.75)
    assert found["outputs/nothing/mean"] is None


Make = Callable[..., Slice]


def _stack(make_slice: Make, images: list[np.ndarray]) -> list[Slice]:
    return [
        make_slice((3.5 * place, 0.0, 0.0), pixels=image, instance_number=place + 1)
        for place, image in enumerate(images)
    ]


def _smooth(image: np.ndarray) -> np.ndarray:
    return (image + np.roll(image, 1, axis=1) + np.roll(image, -1, axis=1)) / 3


@pytest.fixture
def noise() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(100, 1100, (64, 48)).astype(np.uint16) for _ in range(7)]


def test_sizes_and_distances_are_those_of_the_slices(make_slice: Make, noise: list[np.ndarray]) -> None:
    slices = _stack(make_slice, noise)
    found = measure_images(encode_plane("1", Plane.SAGITTAL_T2, slices))
    assert tuple(found) == IMAGE_QUANTITIES
    assert (found["slices"], found["series"], found["rows"], found["columns"]) == (7, 1, 64, 48)
    assert found["row_spacing_mm"] == slices[0].geometry.row_spacing_mm
    assert found["gap_mm"] == pytest.approx(3.5, abs=1e-4)
    # Uniform from 100 to 1,099.
    assert found["low"] == pytest.approx(105, abs=10)
    assert found["high"] == pytest.approx(1094, abs=10)
    assert found["brightness"] == pytest.approx(0.5, abs=0.02)
    # The mean distance of two independent uniform numbers is a third of their range.
    assert found["sharpness"] == pytest.approx(1 / 3, abs=0.02)


def test_both_codecs_measure_the_same(make_slice: Make, noise: list[np.ndarray]) -> None:
    slices = _stack(make_slice, noise)
    raw, png = (
        measure_images(encode_plane("1", Plane.AXIAL_T2, slices, codec=codec)) for codec in PixelEncoding
    )
    assert raw == png


def test_another_scale_of_pixels_changes_low_and_high_only(make_slice: Make, noise: list[np.ndarray]) -> None:
    plain = measure_images(encode_plane("1", Plane.AXIAL_T2, _stack(make_slice, noise)))
    scaled = measure_images(
        encode_plane("1", Plane.AXIAL_T2, _stack(make_slice, [image * 2.5 - 40 for image in noise]))
    )
    for name in ("brightness", "sharpness"):
        assert scaled[name] == pytest.approx(plain[name], abs=1e-3)
    for name in ("low", "high"):
        assert scaled[name] == pytest.approx((plain[name] or 0) * 2.5 - 40, abs=1)


def test_blur_lowers_sharpness(make_slice: Make, noise: list[np.ndarray]) -> None:
    sharp, blurred = (
        measure_images(encode_plane("1", Plane.AXIAL_T2, _stack(make_slice, images)))
        for images in (noise, [_smooth(image.astype(np.float32)).round() for image in noise])
    )
    assert (blurred["sharpness"] or 0) < 0.6 * (sharp["sharpness"] or 0)


def test_tilted_groups_have_gaps_of_their_own(make_slice: Make, noise: list[np.ndarray]) -> None:
    flat = _stack(make_slice, noise[:3])
    geometry = [
        replace(slice_.geometry, position=(9.0, 9.0, 50 + 4.2 * place), row_direction=(1.0, 0.0, 0.0),
                column_direction=(0.0, 1.0, 0.0))
        for place, slice_ in enumerate(flat)
    ]  # fmt: skip
    turned = [replace(slice_, geometry=place) for slice_, place in zip(flat, geometry, strict=True)]
    found = measure_images(encode_plane("1", Plane.AXIAL_T2, [*flat, *turned]))
    assert found["gap_mm"] == pytest.approx((3.5 + 4.2) / 2, abs=1e-3)


def test_a_missing_plane_a_single_slice_and_a_black_one(make_slice: Make) -> None:
    nothing = dict.fromkeys(IMAGE_QUANTITIES)
    assert measure_images(b"") == nothing
    assert measure_images(encode_plane("1", Plane.AXIAL_T2, [])) == nothing
    black = [make_slice(pixels=np.zeros((8, 8), np.uint16))]
    found = measure_images(encode_plane("1", Plane.AXIAL_T2, black))
    assert (found["slices"], found["gap_mm"], found["brightness"]) == (1, None, None)
