from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.labels import Plane
from lumbar_tf.tables.landmarks import (
    LandmarkTable,
    read_doubt,
    read_landmarks,
    write_landmarks,
)


def _table(plane: Plane, studies: tuple[str, ...], fold: int) -> LandmarkTable:
    rng = np.random.default_rng(fold)
    rows = localizer_rows(plane)
    points = rng.normal(0, 60, (len(studies), len(rows), 3)).astype(np.float32)
    spread, doubt = rng.random((2, len(studies), len(rows)), np.float32)
    return LandmarkTable(studies, rows, points, spread, doubt, fold)


def test_tables_of_planes_and_folds_come_back_in_one(tmp_path: Path) -> None:
    tables = [
        _table(Plane.SAGITTAL_T2, ("1", "2"), 0),
        _table(Plane.SAGITTAL_T2, ("3",), 1),
        _table(Plane.SAGITTAL_T1, ("1",), 2),
    ]
    paths = [tmp_path / "landmarks" / f"{place}.csv" for place in range(3)]
    for path, table in zip(paths, tables, strict=True):
        write_landmarks(path, table)
    points = read_landmarks(paths)
    assert sorted(points) == ["1", "2", "3"]
    np.testing.assert_allclose(points["2"][list(tables[0].rows)], tables[0].points[1], atol=5.1e-5)
    np.testing.assert_allclose(points["1"][list(tables[2].rows)], tables[2].points[0], atol=5.1e-5)
    assert np.isfinite(points["1"][:15]).all()
    assert np.isnan(points["1"][15:]).all()
    doubt = read_doubt(paths)
    np.testing.assert_allclose(doubt["2"][list(tables[0].rows)], tables[0].doubt[1], atol=5.1e-5)
    assert np.isnan(doubt["3"][5:]).all()
    assert np.isnan(points["3"][5:]).all()
    assert points["1"].dtype == np.float32


def test_a_point_of_nan_stays_nan(tmp_path: Path) -> None:
    table = _table(Plane.SAGITTAL_T2, ("1",), 0)
    table.points[0, 3] = np.nan
    write_landmarks(tmp_path / "a.csv", table)
    points = read_landmarks([tmp_path / "a.csv"])["1"]
    assert np.isnan(points[3]).all()
    assert np.isfinite(points[[0, 1, 2, 4]]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("x_mm", "x"), "columns"),
        (("_l1_l2,", "_l1_l2,far"), "line 2: the coordinates of .*_l1_l2 must be numbers"),
        (("_l1_l2,", ","), "row id"),
    ],
)
def test_a_damaged_table_is_refused_by_name(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "a.csv"
    write_landmarks(path, _table(Plane.SAGITTAL_T2, ("1",), 0))
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ValueError, match=message):
        read_landmarks([path])


def _spine() -> np.ndarray:
    """Five levels 35 mm apart for each of five conditions."""
    points = np.zeros((25, 3), np.float32)
    points[:, 2] = -35.0 * (np.arange(25) % 5)
    points[:, 0] = 15.0 * (np.arange(25) // 5)
    return points
