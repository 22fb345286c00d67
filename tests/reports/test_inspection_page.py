import json
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, NUM_FINDINGS, Plane
from lumbar_tf.reports.census import Census, StudyFacts, Tally
from lumbar_tf.reports.inspection_page import render_montage, write_census_json, write_inspection_page
from lumbar_tf.reports.label_contradictions import Contradiction
from lumbar_tf.reports.montage import Mark, Montage, MontageRow, SlicePicture
from lumbar_tf.reports.slice_pictures import encode_png
from tests.reports.html_page import Page, check_self_contained

NASTY = '<script>alert("1")</script>'


@pytest.fixture
def montage() -> Montage:
    png = encode_png(np.eye(20, dtype=np.float32), (10.0, 10.0))
    marks = (
        Mark(2.0, 3.0, "L4/5", "spinal canal stenosis L4/L5: Severe", "canal", False),
        Mark(4.0, 5.0, "", NASTY, "foraminal", True),
    )
    picture = SlicePicture(png, 10.0, 10.0, "3 mm L", ("A", "P"), marks)
    return Montage(NASTY, (MontageRow(Plane.SAGITTAL_T2, "17 slices", (picture, picture)),))


@pytest.fixture
def census() -> Census:
    labels = np.zeros(NUM_FINDINGS, np.int8)
    labels[2] = MISSING_LABEL
    tally = Tally()
    tally.add(
        StudyFacts(
            "11",
            (SeriesSummary("1", Plane.SAGITTAL_T2, "", 17, 448, 448, 0.6, 0.6, 4.4, "ge", 1.5),),
            rejects=tuple(Reject("11", "2", NASTY, RejectReason.TRUNCATED, "the rule") for _ in range(150)),
            contradictions=((Contradiction.SIDES_SWAPPED, "left_subarticular_stenosis_l4_l5 by 3 mm"),),
            labels=labels,
            num_points=5,
        )
    )
    tally.add(StudyFacts("12", ()))
    return tally.census()


def _write(folder: Path, census: Census, montages: list[Montage]) -> str:
    path = folder / "inspection.html"
    write_inspection_page(path, census, map(render_montage, montages))
    return path.read_text(encoding="utf-8")


def test_the_page_loads_nothing(tmp_path: Path, census: Census, montage: Montage) -> None:
    check_self_contained(_write(tmp_path, census, [montage]))


def test_every_picture_has_an_alternative_text(tmp_path: Path, census: Census, montage: Montage) -> None:
    page = Page(_write(tmp_path, census, [montage]))
    assert page.pictures == [f"Study {NASTY}, Sagittal T2/STIR, 3 mm L, 2 level points"] * 2


def test_text_of_the_source_is_escaped(tmp_path: Path, census: Census, montage: Montage) -> None:
    text = _write(tmp_path, census, [montage])
    assert "<script" not in text
    assert NASTY in Page(text).text


def test_the_page_holds_the_counts(tmp_path: Path, census: Census) -> None:
    text = Page(_write(tmp_path, census, [])).words
    for expected in (
        "2 studies 1 usable studies 1 graded studies 5 level points",
        "1 series kept 0 series left out 150 faults 1 contradictions",
        "Sagittal T2/STIR 1 1 17",
        "no usable plane 1 50.0%",
        "L3/L4 0 0 0 1",
        "truncated 150 The first 100 of 150, in 1 studies.",
        "sides_swapped The left point lies to the right of the right point 1",
        "No study with usable slices.",
    ):
        assert expected in text


def test_an_empty_census_makes_a_page(tmp_path: Path) -> None:
    text = Page(_write(tmp_path, Tally().census(), [])).text
    assert "No series was kept" in text
    assert "Nothing was left out" in text


def test_the_same_census_makes_the_same_bytes(tmp_path: Path, census: Census, montage: Montage) -> None:
    assert _write(tmp_path, census, [montage]) == _write(tmp_path, census, [montage])


def test_the_json_holds_the_numbers_of_the_page(tmp_path: Path, census: Census) -> None:
    write_census_json(tmp_path / "inspection.json", census)
    found = json.loads((tmp_path / "inspection.json").read_text())
    assert found["num_studies"] == 2
    assert found["planes"]["sagittal_t2"] == {"num_studies": 1, "num_series": 1, "num_slices": 17}
    assert found["studies_by_planes"][0] == {"planes": [], "num_studies": 1}
    assert found["series_by"]["vendor"] == [
        {"value": "ge", "sagittal_t1": 0, "sagittal_t2": 1, "axial_t2": 0}
    ]
    assert len(found["labels"]) == NUM_FINDINGS
    assert found["labels"][FINDINGS[2].name] == {"Normal/Mild": 0, "Moderate": 0, "Severe": 0, "Missing": 1}
    (truncated,) = found["left_out_or_noted"]
    assert (truncated["code"], truncated["kind"], truncated["count"]) == ("truncated", "fault", 150)
    assert len(truncated["first_cases"]) == 100
    assert found["contradictions"][0]["code"] == "sides_swapped"


def test_without_labels_the_json_names_no_finding(tmp_path: Path) -> None:
    write_census_json(tmp_path / "inspection.json", Tally().census())
    assert json.loads((tmp_path / "inspection.json").read_text())["labels"] == {}
