from pathlib import Path

import pytest

from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.labels import Plane
from lumbar_tf.tables.series_descriptions import (
    absent_series,
    absent_studies,
    merge_series_tables,
    read_series_descriptions,
)
from tests.tables.made_tables import write_table

HEADER = "study_id,series_id,series_description"


def test_planes_are_read_by_study_in_either_spelling(tmp_path: Path) -> None:
    rows = ("01,1,Sagittal T2/STIR", "01,2,Axial T2", "2,1,sagittal_t1", "2,2,none", "2, 4 ,NONE")
    planes, rejects = read_series_descriptions(write_table(tmp_path / "table.csv", HEADER, *rows))
    assert planes == {
        "01": {"1": Plane.SAGITTAL_T2, "2": Plane.AXIAL_T2},
        "2": {"1": Plane.SAGITTAL_T1, "2": None, "4": None},
    }
    assert rejects == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2,3,Doe coronal", "line 3: series_description must be one of Sagittal T1"),
        ("2,3,", "series_description"),
        ("2,,Axial T2", "series_id must be given"),
        (",3,Axial T2", "study_id and"),
        ("2,3", "3 cells. Received: 2"),
        ("2,3,Axial T2,4", "3 cells. Received: 4"),
        ("1,1,Sagittal T1", "another description"),
        ("1,1,none", "another description"),
    ],
)
def test_a_row_that_makes_no_sense_is_left_out(tmp_path: Path, row: str, message: str) -> None:
    path = write_table(tmp_path / "table.csv", HEADER, "1,1,Axial T2", row, "4,1,Axial T2")
    planes, rejects = read_series_descriptions(path)
    assert planes == {"1": {"1": Plane.AXIAL_T2}, "4": {"1": Plane.AXIAL_T2}}
    (reject,) = rejects
    assert (reject.reason, reject.file_name) == (RejectReason.BAD_TABLE_ROW, "table.csv")
    assert message in reject.message
    assert "Doe" not in reject.message


def test_the_same_row_twice_is_no_contradiction(tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.csv", HEADER, "1,1,Axial T2", "1,1,axial_t2")
    assert read_series_descriptions(path)[1] == []


def test_further_columns_and_a_byte_order_mark_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\ufeffwho,series_id,study_id,series_description\nme,1,7,Axial T2\n", encoding="utf-8")
    assert read_series_descriptions(path) == ({"7": {"1": Plane.AXIAL_T2}}, [])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"study_id,series_id\n", "series_description"),
        (b"", "study_id"),
        (HEADER.encode() + b"\n1,1,\xff\n", "CSV in UTF-8"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "table.csv").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_series_descriptions(tmp_path / "table.csv")


def test_a_map_overrides_row_by_row() -> None:
    table = {"1": {"a": Plane.AXIAL_T2, "b": Plane.SAGITTAL_T1}, "2": {"a": Plane.AXIAL_T2}}
    overrides = {"1": {"b": None, "c": Plane.SAGITTAL_T2}, "3": {"a": Plane.SAGITTAL_T1}}
    assert merge_series_tables(table, overrides) == {
        "1": {"a": Plane.AXIAL_T2, "b": None, "c": Plane.SAGITTAL_T2},
        "2": {"a": Plane.AXIAL_T2},
        "3": {"a": Plane.SAGITTAL_T1},
    }
    assert table["1"]["b"] is Plane.SAGITTAL_T1


def test_what_a_table_names_and_is_absent() -> None:
    rejects = absent_series("1", {"b": None, "a": Plane.AXIAL_T2, "c": Plane.AXIAL_T2}, ["c"])
    assert [(each.study_id, each.series_id, each.reason) for each in rejects] == [
        ("1", "a", RejectReason.ABSENT_SERIES),
        ("1", "b", RejectReason.ABSENT_SERIES),
    ]
    (note,) = absent_studies(Path("x/train.csv"), ["1", "2", "2", "3"], {"1"})
    assert (note.reason, note.file_name, note.study_id) == (RejectReason.ABSENT_STUDY, "train.csv", "")
    assert note.message.startswith("2 studies")
    assert absent_studies(Path("train.csv"), ["1"], ["1", "2"]) == []
