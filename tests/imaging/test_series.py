import pytest

from lumbar_tf.imaging.geometry import SliceGeometry
from lumbar_tf.imaging.series import SeriesHeader, is_sagittal, tell_plane
from lumbar_tf.labels import Plane

SAGITTAL = SliceGeometry((0, 0, 0), (0, 1, 0), (0, 0, -1), 1.0, 1.0, 4, 4)
AXIAL = SliceGeometry((0, 0, 0), (1, 0, 0), (0, 0.9, 0.436), 1.0, 1.0, 4, 4)
CORONAL = SliceGeometry((0, 0, 0), (1, 0, 0), (0, 0, -1), 1.0, 1.0, 4, 4)


def test_orientation_is_told_from_the_normal() -> None:
    assert (is_sagittal(SAGITTAL), is_sagittal(AXIAL), is_sagittal(CORONAL)) == (True, False, None)


@pytest.mark.parametrize(
    ("geometry", "description", "echo_time_ms", "plane"),
    [
        (SAGITTAL, "T1", None, Plane.SAGITTAL_T1),
        (SAGITTAL, "SAG T2 FSE", None, Plane.SAGITTAL_T2),
        (SAGITTAL, "Sag STIR", 40.0, Plane.SAGITTAL_T2),
        (AXIAL, "ax t2", None, Plane.AXIAL_T2),
        (AXIAL, "T1", None, None),
        (CORONAL, "T2", None, None),
        (SAGITTAL, "", 9.0, Plane.SAGITTAL_T1),
        (SAGITTAL, "", 110.0, Plane.SAGITTAL_T2),
        (SAGITTAL, "", 45.0, None),
        (SAGITTAL, "", None, None),
        (SAGITTAL, "T2 localizer", None, None),
        (AXIAL, "3-plane scout", 100.0, None),
    ],
)
def test_plane_is_told_or_left_open(
    geometry: SliceGeometry, description: str, echo_time_ms: float | None, plane: Plane | None
) -> None:
    assert tell_plane(geometry, SeriesHeader(description, echo_time_ms)) is plane
