"""Statistics of a plane's record, held against the slices that it was made of."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import Plane
from lumbar_tf.monitoring.images import IMAGE_QUANTITIES, measure_images
from lumbar_tf.records.schema import PixelEncoding, encode_plane

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
        encode_plane("1", Plane.AXIAL_T2, _stack(make_slice, [each * 2.5 - 40 for each in noise]))
    )
    for name in ("brightness", "sharpness"):
        assert scaled[name] == pytest.approx(plain[name], abs=1e-3)
    for name in ("low", "high"):
        assert scaled[name] == pytest.approx((plain[name] or 0) * 2.5 - 40, abs=1)


def test_blur_lowers_sharpness(make_slice: Make, noise: list[np.ndarray]) -> None:
    sharp, blurred = (
        measure_images(encode_plane("1", Plane.AXIAL_T2, _stack(make_slice, images)))
        for images in (noise, [_smooth(each.astype(np.float32)).round() for each in noise])
    )
    assert (blurred["sharpness"] or 0) < 0.6 * (sharp["sharpness"] or 0)


def test_tilted_groups_have_gaps_of_their_own(make_slice: Make, noise: list[np.ndarray]) -> None:
    flat = _stack(make_slice, noise[:3])
    geometry = [
        replace(each.geometry, position=(9.0, 9.0, 50 + 4.2 * place), row_direction=(1.0, 0.0, 0.0),
                column_direction=(0.0, 1.0, 0.0))
        for place, each in enumerate(flat)
    ]  # fmt: skip
    turned = [replace(each, geometry=place) for each, place in zip(flat, geometry, strict=True)]
    found = measure_images(encode_plane("1", Plane.AXIAL_T2, [*flat, *turned]))
    assert found["gap_mm"] == pytest.approx((3.5 + 4.2) / 2, abs=1e-3)


def test_a_missing_plane_a_single_slice_and_a_black_one(make_slice: Make) -> None:
    nothing = dict.fromkeys(IMAGE_QUANTITIES)
    assert measure_images(b"") == nothing
    assert measure_images(encode_plane("1", Plane.AXIAL_T2, [])) == nothing
    black = [make_slice(pixels=np.zeros((8, 8), np.uint16))]
    found = measure_images(encode_plane("1", Plane.AXIAL_T2, black))
    assert (found["slices"], found["gap_mm"], found["brightness"]) == (1, None, None)
