from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.data.coordinates import Coordinate, place_points, read_coordinates
from lumbar_tf.data.series_table import read_series_table
from lumbar_tf.imaging.study import RejectReason, Slice
from lumbar_tf.labels import Condition, Level, Plane, finding_index

HEADER = "study_id,series_id,instance_number,condition,level,x,y"


def _table(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_both_spellings_and_further_columns_are_read(tmp_path: Path) -> None:
    path = _table(
        tmp_path,
        "007,1,8,Spinal Canal Stenosis,L1/L2,322.8,227.9,x",
        "007,1,8.0,left_neural_foraminal_narrowing,l5_s1,1,2,",
        header=f"{HEADER},fix",
    )
    points, rejects = read_coordinates(path)
    assert rejects == []
    last = finding_index(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Level.L5_S1)
    assert points == {"007": [Coordinate("1", 8, 0, 322.8, 227.9), Coordinate("1", 8, last, 1.0, 2.0)]}


@pytest.mark.parametrize(
    "row",
    [
        "1,1,8,Canal,L1/L2,1,2",
        "1,1,8,Spinal Canal Stenosis,L6/S1,1,2",
        "1,1,8,Spinal Canal Stenosis,L1/L2,nan,2",
        "1,1,8,Spinal Canal Stenosis,L1/L2,,2",
        "1,1,inf,Spinal Canal Stenosis,L1/L2,1,2",
        "1,1,,Spinal Canal Stenosis,L1/L2,1,2",
    ],
)
def test_a_row_that_makes_no_sense_is_left_out_with_a_reason(tmp_path: Path, row: str) -> None:
    points, rejects = read_coordinates(_table(tmp_path, row, "2,1,8,Spinal Canal Stenosis,L1/L2,1,2"))
    assert list(points) == ["2"]
    assert [(each.study_id, each.reason) for each in rejects] == [("1", RejectReason.BAD_TABLE_ROW)]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Missing: \['y'\]"):
        read_coordinates(_table(tmp_path, header=HEADER.removesuffix(",y")))
    with pytest.raises(ValueError, match="series_description"):
        read_series_table(_table(tmp_path, header="study_id,series_id"))


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
        RejectReason.BAD_TABLE_ROW,
        RejectReason.NO_SUCH_SLICE,
        RejectReason.NO_SUCH_SLICE,
    ]


def test_a_series_table_is_read_by_study(tmp_path: Path) -> None:
    rows = ("01,1,Sagittal T2/STIR", "01,2,Axial T2", "2,1,sagittal_t1", "2,3,Coronal")
    planes, rejects = read_series_table(
        _table(tmp_path, *rows, header="study_id,series_id,series_description")
    )
    assert planes == {
        "01": {"1": Plane.SAGITTAL_T2, "2": Plane.AXIAL_T2},
        "2": {"1": Plane.SAGITTAL_T1},
    }
    assert [(each.series_id, each.reason) for each in rejects] == [("3", RejectReason.BAD_TABLE_ROW)]
