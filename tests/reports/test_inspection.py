import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.labels import FINDINGS, Condition, Level, Plane, finding_index
from lumbar_tf.reports.inspection import inspect_sources
from lumbar_tf.reports.series_attributes import Attribute

KEY = bytes(range(32))
AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
SERIES = {"11": "Sagittal T1", "12": "Sagittal T2/STIR", "13": "Axial T2", "14": "none"}
CANAL_L1 = finding_index(Condition.SPINAL_CANAL_STENOSIS, Level.L1_L2)


def _write_table(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _write_study(
    images: Path, study_id: str, write_dicom: Callable[..., Path], *, series: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(int(study_id))
    for series_id in series:
        for number in range(1, 5):
            place = {"ImagePositionPatient": [4.0 * number - 10, -20.0, 20.0]}
            if series_id == "13":
                place = {
                    "ImagePositionPatient": [-20.0, -20.0, 4.0 * number],
                    "ImageOrientationPatient": AXIAL,
                }
            write_dicom(
                images / study_id / series_id / f"{number}.dcm",
                rng.integers(0, 1200, (48, 64), dtype=np.uint16),
                InstanceNumber=number,
                Manufacturer="SIEMENS",
                MagneticFieldStrength="1.494",
                PatientName="SECRET^NAME",
                PatientID=f"SECRET-{study_id}",
                **place,
            )


@pytest.fixture
def data(tmp_path: Path, write_dicom: Callable[..., Path]) -> Path:
    """Three studies in the competition's layout: whole, without axial, and without anything that is read."""
    folder = tmp_path / "data"
    images = folder / "train_images"
    _write_study(images, "710001", write_dicom, series=("11", "12", "13", "14"))
    _write_study(images, "710002", write_dicom, series=("11", "12"))
    (images / "710003" / "11").mkdir(parents=True)
    (images / "710003" / "11" / "1.dcm").write_bytes(b"no image at all" * 100)
    _write_table(
        folder / "train_series_descriptions.csv",
        [
            ["study_id", "series_id", "series_description"],
            *(["710001", series_id, name] for series_id, name in SERIES.items()),
            *(["710002", series_id, SERIES[series_id]] for series_id in ("11", "12", "13")),
        ],
    )
    _write_table(
        folder / "train.csv",
        [
            ["study_id", *(finding.name for finding in FINDINGS)],
            ["710001", *["Normal/Mild"] * 24, ""],
            ["710002", "Severe", *["Moderate"] * 24],
        ],
    )
    _write_table(
        folder / "train_label_coordinates.csv",
        [
            ["study_id", "series_id", "instance_number", "condition", "level", "x", "y"],
            ["710001", "12", "2", "Spinal Canal Stenosis", "L1/L2", "30", "20"],
            ["710001", "12", "2", "Spinal Canal Stenosis", "L2/L3", "30", "10"],
            ["710001", "13", "3", "Left Subarticular Stenosis", "L4/L5", "20", "20"],
            ["710001", "13", "3", "Right Subarticular Stenosis", "L4/L5", "30", "20"],
            ["710001", "11", "9", "Left Neural Foraminal Narrowing", "L4/L5", "30", "20"],
        ],
    )
    return folder


def test_series_points_labels_and_rejects_are_counted(data: Path, tmp_path: Path) -> None:
    census = inspect_sources([data], tmp_path / "out")
    assert (census.num_studies, census.num_usable, census.num_graded, census.num_points) == (3, 2, 2, 4)
    counts = {count.plane: (count.num_studies, count.num_series, count.num_slices) for count in census.planes}
    assert counts == {
        Plane.SAGITTAL_T1: (2, 2, 8),
        Plane.SAGITTAL_T2: (2, 2, 8),
        Plane.AXIAL_T2: (1, 1, 4),
    }
    rows = {breakdown.attribute: [name for name, _ in breakdown.rows] for breakdown in census.breakdowns}
    assert rows == {
        Attribute.VENDOR: ["siemens"],
        Attribute.FIELD_STRENGTH: ["1.5 T"],
        Attribute.MATRIX: ["48 x 64"],
        Attribute.PIXEL_SPACING: ["0.5 to 0.6 mm"],
        Attribute.SLICE_GAP: ["4.0 to 4.5 mm"],
        Attribute.NUM_SLICES: ["2 to 5"],
    }
    assert census.labels is not None
    assert census.labels[CANAL_L1].tolist() == [1, 0, 1, 0]
    assert census.labels[24].tolist() == [0, 1, 0, 1]
    codes = {cases.code: cases.count for cases in census.left_out}
    expected = {"not_dicom": 1, "no_slices": 1, "left_out_by_map": 1, "absent_series": 1, "no_such_slice": 1}
    assert expected.items() <= codes.items()


def test_contradictions_between_tables_and_anatomy_are_found(data: Path, tmp_path: Path) -> None:
    census = inspect_sources([data], tmp_path / "out")
    cases = {kind.code: [case.message for case in kind.cases] for kind in census.contradictions}
    assert cases["sides_swapped"] == ["left_subarticular_stenosis_l4_l5 by 7.5 mm"]
    assert cases["levels_out_of_order"] == ["spinal_canal_stenosis_l1_l2 by 5.0 mm"]
    assert len(cases["label_without_point"]) == 20
    assert "point_on_other_plane" not in cases


def test_page_and_json_are_written_and_do_not_depend_on_the_workers(data: Path, tmp_path: Path) -> None:
    inspect_sources([data], tmp_path / "one")
    inspect_sources([data], tmp_path / "two", workers=2)
    for name in ("inspection.html", "inspection.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    page = (tmp_path / "one" / "inspection.html").read_text()
    assert re.findall(r"<h3>(\d+)</h3>", page) == ["710001", "710002"]
    # Two sagittal planes of four slices each, and the axial slices near three of the levels.
    assert page.count("<img ") == 2 * (4 + 4) + 3
    assert json.loads((tmp_path / "one" / "inspection.json").read_text())["num_studies"] == 3


def test_max_montages_limits_the_studies_drawn(data: Path, tmp_path: Path) -> None:
    for count, expected in ((0, []), (1, ["710001"]), (2, ["710001"])):
        inspect_sources([data], tmp_path / "out", max_montages=count)
        page = (tmp_path / "out" / "inspection.html").read_text()
        assert re.findall(r"<h3>(\d+)</h3>", page) == expected


def test_no_patient_data_is_written(data: Path, tmp_path: Path) -> None:
    inspect_sources([data], tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        text = path.read_text()
        assert "SECRET" not in text
        assert str(tmp_path) not in text


def test_under_pseudonyms_no_id_is_written_and_every_mark_stays(data: Path, tmp_path: Path) -> None:
    plain = inspect_sources([data], tmp_path / "plain")
    hidden = inspect_sources([data], tmp_path / "hidden", key=KEY)
    assert [cases.count for cases in plain.left_out] == [cases.count for cases in hidden.left_out]
    assert plain.num_points == hidden.num_points
    pages = {name: (tmp_path / name / "inspection.html").read_text() for name in ("plain", "hidden")}
    assert pages["hidden"].count('class="mark') == pages["plain"].count('class="mark')
    assert "71000" in pages["plain"]
    assert "71000" not in pages["hidden"] + (tmp_path / "hidden" / "inspection.json").read_text()


def test_a_series_map_overrides_the_sources(data: Path, tmp_path: Path) -> None:
    _write_table(
        tmp_path / "map.csv", [["study_id", "series_id", "series_description"], ["710001", "13", "none"]]
    )
    census = inspect_sources([data], tmp_path / "out", series_map=tmp_path / "map.csv")
    assert {count.plane: count.num_series for count in census.planes}[Plane.AXIAL_T2] == 0


def test_real_studies_are_all_usable(shared_data: Path, tmp_path: Path) -> None:
    census = inspect_sources([shared_data / "spider" / "midsagittal"], tmp_path, max_montages=2)
    assert (census.num_studies, census.num_usable, census.num_graded) == (54, 54, 54)
    assert census.num_points == 270
    assert [count.num_slices for count in census.planes] == [48, 54, 0]
    assert census.contradictions == ()
