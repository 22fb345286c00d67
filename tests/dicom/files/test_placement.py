from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.spatial import PixelToReferenceTransformer

from lumbar_tf.dicom.files.code_streams import PixelLayout
from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.files.headers import read_dataset_header
from lumbar_tf.dicom.files.placement import read_geometry, read_rescale
from lumbar_tf.dicom.geometry import pixel_to_patient
from lumbar_tf.dicom.reasons import RejectedError, RejectReason
from tests.dicom.made_files import make_enhanced, make_file

LAYOUT = PixelLayout(12, 16, 16, 12, is_signed=False, is_inverted=False)


def _reason(**tags: Any) -> RejectReason:
    dataset = read_dataset_header(make_file(**tags))
    with pytest.raises(RejectedError) as caught:
        read_geometry(dataset, LAYOUT, 0, in_groups=False)
        read_rescale(dataset, 0, in_groups=False)
    return caught.value.reason


def test_the_position_of_an_oblique_slice_equals_that_of_highdicom() -> None:
    orientation = [0.9659, -0.2588, 0.0, 0.1294, 0.483, -0.866]
    data = make_file(ImageOrientationPatient=orientation, PixelSpacing=[0.4, 1.25], FrameOfReferenceUID="1.2")
    reference = PixelToReferenceTransformer.for_image(pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)))
    geometry = open_image(data).frames[0].geometry
    pixels = np.array([[0, 0], [15, 0], [0, 11], [7, 3]])  # (column, row)
    np.testing.assert_allclose(
        [pixel_to_patient(geometry, pixel) for pixel in pixels], reference(pixels), atol=1e-3
    )


@pytest.mark.parametrize("spacing", [[0.01, 100.0], [3.25, 3.25]])
def test_wide_and_narrow_pixels_are_accepted(spacing: list[float]) -> None:
    geometry = open_image(make_file(PixelSpacing=spacing)).frames[0].geometry
    assert [geometry.row_spacing_mm, geometry.column_spacing_mm] == spacing


@pytest.mark.parametrize("spacing", [[0.009, 1.0], [1.0, 101.0], [1.0, 1.0, 1.0], [-1.0, 1.0]])
def test_impossible_pixel_spacings_are_rejected(spacing: list[float]) -> None:
    assert _reason(PixelSpacing=spacing) is RejectReason.BAD_SPACING


@pytest.mark.parametrize("scale", [0.985, 1.015])
def test_directions_are_of_unit_length(scale: float) -> None:
    assert _reason(ImageOrientationPatient=[0, scale, 0, 0, 0, -1]) is RejectReason.BAD_ORIENTATION


def test_directions_are_perpendicular() -> None:
    assert _reason(ImageOrientationPatient=[0, 1, 0, 0, 0.02, -0.9998]) is RejectReason.BAD_ORIENTATION


def test_rescale_is_that_of_the_frame() -> None:
    dataset = read_dataset_header(make_enhanced(RescaleSlope=7))
    assert [read_rescale(dataset, index, in_groups=True) for index in range(3)] == [
        (1, 0),
        (2, -10),
        (3, -20),
    ]
    assert read_rescale(read_dataset_header(make_file()), 0, in_groups=False) == (1.0, 0.0)
    assert read_rescale(read_dataset_header(make_file(RescaleSlope=-2)), 0, in_groups=False) == (-2.0, 0.0)


@pytest.mark.parametrize(
    "tags", [{"RescaleSlope": "2e30"}, {"RescaleIntercept": "-2e30"}, {"RescaleSlope": 0}]
)
def test_rescale_stays_within_float32(tags: dict[str, Any]) -> None:
    assert _reason(**tags) is RejectReason.BAD_RESCALE
