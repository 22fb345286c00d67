import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from lumbar_tf.dicom.geometry import SliceGeometry, pixel_to_patient
from lumbar_tf.dicom.study import Slice, Study
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Condition, Level, Plane, Severity, finding_index
from lumbar_tf.reports.montage import LevelPoints, SlicePicture, make_montage
from lumbar_tf.reports.slice_pictures import encode_png

#: Sagittal slices stored back to front and axial ones tilted by 14 degrees: marks must not mind.
SAGITTAL = ((0.0, -1.0, 0.0), (0.0, 0.0, -1.0))
TILT = np.deg2rad(14)
AXIAL = ((1.0, 0.0, 0.0), (0.0, float(np.cos(TILT)), float(np.sin(TILT))))
CANAL = [finding_index(Condition.SPINAL_CANAL_STENOSIS, level) for level in Level]
LEFT = [finding_index(Condition.LEFT_SUBARTICULAR_STENOSIS, level) for level in Level]


def _sagittal(number: int, spots: list[tuple[int, int]]) -> Slice:
    """A slice 5 mm beside the one before, dark but for spots at (column, row)."""
    geometry = SliceGeometry((5.0 * number - 20, 60.0, 80.0), *SAGITTAL, 0.8, 0.7, 220, 200)
    return Slice(geometry, _spotted(220, 200, spots), "sag", number)


def _axial(number: int, spots: list[tuple[int, int]]) -> Slice:
    geometry = SliceGeometry((-60.0, -50.0, 33.5 - 9.33 * number), *AXIAL, 0.6, 0.6, 200, 210)
    return Slice(geometry, _spotted(200, 210, spots), "ax", number)


def _spotted(rows: int, columns: int, spots: list[tuple[int, int]]) -> np.ndarray:
    pixels = np.zeros((rows, columns), np.float32)
    for column, row in spots:
        pixels[row - 2 : row + 3, column - 2 : column + 3] = 1000
    return pixels


def _pixels(picture: SlicePicture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.png)))


def _brightness(picture: SlicePicture, x: float, y: float) -> int:
    pixels = _pixels(picture)
    scale = pixels.shape[1] / picture.width_mm
    return int(pixels[int(y * scale), int(x * scale)])


def _no_points() -> LevelPoints:
    return LevelPoints(np.full((NUM_FINDINGS, 3), np.nan, np.float32), {}, None)


def _study_with_points() -> tuple[Study, LevelPoints]:
    """Five canal points on sagittal slice 3 and a left subarticular point a level on axial slices."""
    pixels = [(90 + 2 * place, 40 + 35 * place) for place in range(5)]
    sagittals = tuple(_sagittal(number, pixels if number == 3 else []) for number in range(9))
    axials = tuple(_axial(number, [(120, 100)]) for number in range(15))
    positions = np.full((NUM_FINDINGS, 3), np.nan, np.float32)
    slices = {}
    labels = np.zeros(NUM_FINDINGS, np.int8)
    labels[CANAL[4]] = Severity.SEVERE
    for place, row in enumerate(CANAL):
        positions[row] = pixel_to_patient(sagittals[3].geometry, pixels[place])
        slices[row] = ("sag", 3)
    for place, row in enumerate(LEFT):
        positions[row] = pixel_to_patient(axials[3 * place].geometry, (120, 100))
        slices[row] = ("ax", 3 * place)
    study = Study("7", "", {Plane.SAGITTAL_T2: sagittals, Plane.AXIAL_T2: axials})
    return study, LevelPoints(positions, slices, labels)


def test_a_mark_lies_on_the_pixel_that_was_annotated() -> None:
    study, points = _study_with_points()
    sagittal, axial = make_montage(study, points).rows
    marked = [picture for picture in sagittal.pictures if picture.marks]
    assert [len(picture.marks) for picture in marked] == [5]
    for mark in marked[0].marks:
        assert _brightness(marked[0], mark.x, mark.y) == 255
        assert not mark.is_projected
    for picture in axial.pictures:
        (placed,) = [mark for mark in picture.marks if not mark.is_projected]
        assert placed.family == "subarticular"
        assert _brightness(picture, placed.x, placed.y) == 255


def test_a_sagittal_row_shows_the_annotated_slice_and_its_neighbours_from_right_to_left() -> None:
    study, points = _study_with_points()
    row = make_montage(study, points).rows[0]
    assert [picture.caption for picture in row.pictures] == ["15 mm R", "10 mm R", "5 mm R", "0 mm", "5 mm L"]
    assert row.note == "9 slices"


def test_an_axial_row_shows_a_slice_a_level_with_the_canal_point_projected() -> None:
    study, points = _study_with_points()
    row = make_montage(study, points).rows[1]
    assert [picture.caption for picture in row.pictures] == [level.title for level in Level]
    projected = [mark for picture in row.pictures for mark in picture.marks if mark.is_projected]
    assert {mark.family for mark in projected} <= {"canal"}
    assert projected


def test_the_title_of_a_mark_names_finding_and_grade() -> None:
    study, points = _study_with_points()
    titles = {mark.title for p in make_montage(study, points).rows[0].pictures for mark in p.marks}
    assert "spinal canal stenosis L5/S1: Severe" in titles
    assert "spinal canal stenosis L1/L2: Normal/Mild" in titles


def test_without_points_a_montage_shows_the_middle_and_an_even_spread() -> None:
    study, _ = _study_with_points()
    sagittal, axial = make_montage(study, _no_points()).rows
    assert [picture.caption for picture in sagittal.pictures] == [
        "10 mm R",
        "5 mm R",
        "0 mm",
        "5 mm L",
        "10 mm L",
    ]
    assert len(axial.pictures) == 5
    assert not any(picture.marks for picture in (*sagittal.pictures, *axial.pictures))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_short_stack_is_shown_whole(count: int) -> None:
    study = Study(
        "7",
        "",
        {
            Plane.SAGITTAL_T1: tuple(_sagittal(number, []) for number in range(count)),
            Plane.AXIAL_T2: tuple(_axial(number, []) for number in range(count)),
        },
    )
    for row in make_montage(study, _no_points()).rows:
        assert len(row.pictures) == count


def test_a_level_far_from_every_axial_slice_has_no_picture() -> None:
    study, points = _study_with_points()
    planes = {Plane.AXIAL_T2: study.planes[Plane.AXIAL_T2][:3]}
    only_first = {row: name for row, name in points.slices.items() if name[0] == "sag"}
    (row,) = make_montage(Study("7", "", planes), LevelPoints(points.positions, only_first, None)).rows
    assert 0 < len(row.pictures) < 5


def test_a_png_is_windowed_to_its_own_values_and_black_where_there_is_no_image() -> None:
    image = np.tile(np.linspace(-500, 9000, 100, dtype=np.float32), (100, 1))
    image[:, :20] = np.nan
    pixels = np.asarray(Image.open(io.BytesIO(encode_png(image, (50.0, 50.0)))))
    assert pixels.dtype == np.uint8
    assert (pixels[:, :10] == 0).all()
    assert pixels.max() == 255
    assert (np.diff(pixels[0].astype(int)) >= 0).all()


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_an_image_without_contrast_makes_a_png(value: float) -> None:
    image = np.full((100, 100), value, np.float32)
    assert Image.open(io.BytesIO(encode_png(image, (50.0, 50.0)))).size == (62, 62)


def test_stored_integers_are_drawn_as_they_are(make_slice: Callable[..., Slice]) -> None:
    slices = tuple(_sagittal(number, [(100, 100)]) for number in range(3))
    stored = tuple(
        Slice(s.geometry, s.pixels.astype(np.uint16), s.series_id, s.instance_number) for s in slices
    )
    pictures = [
        make_montage(Study("7", "", {Plane.SAGITTAL_T2: stack}), _no_points()).rows[0].pictures
        for stack in (slices, stored)
    ]
    assert pictures[0] == pictures[1]


def test_every_finding_can_be_marked() -> None:
    study, points = _study_with_points()
    positions = np.full((NUM_FINDINGS, 3), points.positions[CANAL[0]], np.float32)
    slices = dict.fromkeys(range(NUM_FINDINGS), ("sag", 3))
    row = make_montage(study, LevelPoints(positions, slices, None)).rows[0]
    marks = [mark for picture in row.pictures for mark in picture.marks]
    assert len(marks) == len(FINDINGS)
    assert {mark.family for mark in marks} == {"canal", "foraminal", "subarticular"}
