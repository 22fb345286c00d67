"""Pixels of level points, on one series as far as possible; the expected numbers are worked out by hand."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import MRImageStorage

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.interop.source_references import ImagePoint, SourceImage, SourceStudy, place_points_on_images
from lumbar_tf.labels import Condition, Plane

CANAL, FORAMEN = Condition.SPINAL_CANAL_STENOSIS, Condition.LEFT_NEURAL_FORAMINAL_NARROWING
NO_POINT = (math.nan, math.nan, math.nan)


def _sagittal(x: float) -> SliceGeometry:
    """Returns a slice with columns to the back, 0.75 mm apart, and rows to the feet, 0.5 mm apart."""
    return SliceGeometry((x, -30.0, 25.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0), 0.5, 0.75, 100, 80)


def _axial(z: float) -> SliceGeometry:
    """Returns a slice with columns to the left and rows to the back, 1 mm apart."""
    return SliceGeometry((-40.0, -30.0, z), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), 1.0, 1.0, 60, 80)


def _study(**series: list[SliceGeometry]) -> SourceStudy:
    planes = {
        Plane(plane): tuple(
            (geometry, SourceImage(MRImageStorage, f"{plane}.{place}", plane, "frame of reference"))
            for place, geometry in enumerate(geometries)
        )
        for plane, geometries in series.items()
    }
    return SourceStudy("1.2", {}, planes, {})


STUDY = _study(
    sagittal_t1=[_sagittal(x) for x in (-4.0, 0.0, 4.0)],
    sagittal_t2=[_sagittal(x) for x in (-4.0, 0.0, 4.0)],
    axial_t2=[_axial(z) for z in (-60.0, 0.0, 4.0)],
)


def _place(
    study: SourceStudy, *points: tuple[Condition, tuple[float, float, float]]
) -> list[ImagePoint | None]:
    arrays: list[tuple[Condition, NDArray[np.floating]]] = [
        (condition, np.array(point)) for condition, point in points
    ]
    return place_points_on_images(study, arrays)


def test_a_point_is_at_its_column_and_row_on_the_nearest_slice() -> None:
    # 15 mm behind the first column, 12 mm below the first row.
    (place,) = _place(STUDY, (CANAL, (3.0, -15.0, 13.0)))
    assert place is not None and place.image.sop_instance_uid == "sagittal_t2.2"
    assert (place.column, place.row) == pytest.approx((15 / 0.75, 12 / 0.5))


def test_points_of_all_conditions_are_on_one_series() -> None:
    places = _place(STUDY, (CANAL, (0.0, 0.0, 0.0)), (FORAMEN, (3.0, 0.0, 0.0)), (FORAMEN, NO_POINT))
    assert [place and place.image.sop_instance_uid for place in places] == [
        "sagittal_t2.1",
        "sagittal_t2.2",
        None,
    ]


def test_the_series_with_most_points_is_preferred_and_the_rest_are_on_their_own() -> None:
    low = (0.0, 0.0, -60.0)  # below the sagittal images, on the first axial one
    places = _place(STUDY, (CANAL, low), (FORAMEN, low), (CANAL, (0.0, 0.0, 20.0)), (CANAL, (0.0, 0.0, 0.0)))
    assert [place and place.image.sop_instance_uid for place in places] == [
        "axial_t2.0",
        "axial_t2.0",
        "sagittal_t2.1",
        "axial_t2.1",
    ]


@pytest.mark.parametrize(
    ("point", "is_shown"),
    [
        # The border of the last pixel: column 79.5 is y = -30 + 79.5 * 0.75.
        ((0.0, 29.6, 0.0), True),
        ((0.0, 29.7, 0.0), False),
        # 10 mm beside the outermost slice.
        ((13.9, 0.0, 0.0), True),
        ((14.1, 0.0, 0.0), False),
    ],
)
def test_a_point_that_no_image_shows_has_no_place(point: tuple[float, float, float], is_shown: bool) -> None:
    (place,) = _place(_study(sagittal_t2=[_sagittal(x) for x in (-4.0, 0.0, 4.0)]), (CANAL, point))
    assert (place is not None) == is_shown


def test_a_study_without_images_of_a_plane_has_no_places() -> None:
    assert _place(_study(), (CANAL, (0.0, 0.0, 0.0))) == [None]
