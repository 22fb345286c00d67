from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import Condition, Level, Plane, finding_index
from lumbar_tf.tables.coordinates import Coordinate, place_points, read_coordinates
from tests.tables.made_tables import write_table

HEADER = "study_id,series_id,instance_number,condition,level,x,y"


def test_both_spellings_and_further_columns_are_read(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / "table.csv",
        f"{HEADER},fix",
        "007,1,8,Spinal Canal Stenosis,L1/L2,322.8,227.9,x",
        "007,1,8.0,left_neural_foraminal_narrowing,l5_s1,1,2,",
    )
    points, rejects = read_coordinates(path)
    assert rejects == []
    last = finding_index(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Level.L5_S1)
    assert points == {"007": [Coordinate("1", 8, 0, 322.8, 227.9), Coordinate("1", 8, last, 1.0, 2.0)]}


def test_a_finding_with_two_points_has_none(tmp_path: Path) -> None:
    rows = (
        "1,1,8,Spinal Canal Stenosis,L1/L2,1,2",
        "1,1,8,Spinal Canal Stenosis,L2/L3,1,2",
        "1,1,8,spinal_canal_stenosis,l1_l2,1,3",
        "1,1,8,Spinal Canal Stenosis,L2/L3,1.0,2",  # the same again
        "2,1,8,Spinal Canal Stenosis,L1/L2,1,9",
    )
    points, rejects = read_coordinates(write_table(tmp_path / "table.csv", HEADER, *rows))
    assert points == {"1": [Coordinate("1", 8, 1, 1.0, 2.0)], "2": [Coordinate("1", 8, 0, 1.0, 9.0)]}
    assert [(reject.study_id, reject.reason) for reject in rejects] == [("1", RejectReason.BAD_TABLE_ROW)] * 2
    assert [reject.message.partition(":")[0] for reject in rejects] == ["line 2", "line 4"]


def test_a_real_table_with_a_point_given_twice(shared_data: Path) -> None:
    folder = shared_data.parent / "cases" / "tables" / "coordinates_given_twice"
    points, rejects = read_coordinates(folder / "train_label_coordinates.csv")
    assert [(reject.study_id, reject.reason) for reject in rejects] == [
        ("800000001", RejectReason.BAD_TABLE_ROW)
    ] * 2
    assert {study: len(found) for study, found in points.items()} == {
        "800000001": 23,
        "800000002": 25,
        "800000003": 25,
        "800000004": 25,
    }


@pytest.mark.parametrize(
    "row",
    [
        "1,1,8,Canal,L1/L2,1,2",
        "1,1,8,Spinal Canal Stenosis,L6/S1,1,2",
        "1,1,8,Spinal Canal Stenosis,L1/L2,nan,2",
        "1,1,8,Spinal Canal Stenosis,L1/L2,,2",
        "1,1,inf,Spinal Canal Stenosis,L1/L2,1,2",
        "1,1,,Spinal Canal Stenosis,L1/L2,1,2",
        "1,1,8.5,Spinal Canal Stenosis,L1/L2,1,2",
        "1,1,8,Spinal Canal Stenosis,L1/L2,1 Doe,2",
    ],
)
def test_a_row_that_makes_no_sense_is_left_out_with_a_reason(tmp_path: Path, row: str) -> None:
    path = write_table(tmp_path / "table.csv", HEADER, row, "2,1,8,Spinal Canal Stenosis,L1/L2,1,2")
    points, rejects = read_coordinates(path)
    assert list(points) == ["2"]
    assert [(each.study_id, each.reason) for each in rejects] == [("1", RejectReason.BAD_TABLE_ROW)]
    assert rejects[0].message.startswith("line 2: ")
    assert "Doe" not in rejects[0].message


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Missing: \['y'\]"):
        read_coordinates(write_table(tmp_path / "table.csv", HEADER.removesuffix(",y")))


def test_points_are_placed_in_patient_space(make_slice: Callable[..., Slice]) -> None:
    # Column spacing 0.75 along +y, row spacing 0.5 along -z.
    planes = {Plane.SAGITTAL_T2: [make_slice((5.0, -10.0, 20.0), series_id="a", instance_number=3)]}
    coordinates = [
        Coordinate("a", 3, 0, 4.0, 2.0),
        Coordinate("a", 3, 1, 8.0, 2.0),
        Coordinate("a", 4, 2, 1.0, 1.0),
        Coordinate("b", 3, 3, 1.0, 1.0),
    ]
    points, rejects = place_points("1", planes, coordinates)
    np.testing.assert_allclose(points[0], (5.0, -10.0 + 4 * 0.75, 20.0 - 2 * 0.5))
    assert np.isnan(points[1:]).all()
    assert [each.reason for each in rejects] == [
        RejectReason.POINT_OUTSIDE_IMAGE,
        RejectReason.NO_SUCH_SLICE,
        RejectReason.NO_SUCH_SLICE,
    ]
    assert {each.study_id for each in rejects} == {"1"}


@pytest.mark.parametrize(
    ("column", "row", "is_inside"),
    [
        (-0.5, -0.5, True),
        (7.5, 5.5, True),
        (-0.6, 0, False),
        (7.6, 0, False),
        (0, -0.6, False),
        (0, 5.6, False),
    ],
)
def test_an_image_reaches_half_a_pixel_beyond_its_outer_centres(
    make_slice: Callable[..., Slice], column: float, row: float, is_inside: bool
) -> None:
    planes = {Plane.SAGITTAL_T2: [make_slice(series_id="a", instance_number=3)]}  # 6 rows, 8 columns
    points, rejects = place_points("1", planes, [Coordinate("a", 3, 0, column, row)])
    assert np.isfinite(points[0]).all() == is_inside
    assert [each.reason for each in rejects] == ([] if is_inside else [RejectReason.POINT_OUTSIDE_IMAGE])


def test_a_number_that_two_slices_have_places_no_point(make_slice: Callable[..., Slice]) -> None:
    slices = [make_slice((each, 0.0, 0.0), series_id="a", instance_number=3) for each in (0.0, 5.0)]
    other = make_slice(series_id="b", instance_number=3)
    planes = {Plane.SAGITTAL_T2: slices, Plane.AXIAL_T2: [other]}
    points, rejects = place_points("1", planes, [Coordinate("a", 3, 0, 1, 1), Coordinate("b", 3, 1, 1, 1)])
    assert np.isfinite(points[:2]).all(axis=1).tolist() == [False, True]
    assert [each.reason for each in rejects] == [RejectReason.AMBIGUOUS_SLICE]
