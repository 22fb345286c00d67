import csv
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.ensemble.label_noise import SuspectLabel
from lumbar_tf.labels import FINDINGS, Plane, Severity
from lumbar_tf.reports.montage import Mark, MontageRow, SlicePicture
from lumbar_tf.reports.review_labels import finding_key, write_review_page, write_review_table
from lumbar_tf.reports.slice_pictures import encode_png
from tests.reports.html_page import Page, check_self_contained

NASTY = '<script>alert("1")</script>'


@pytest.fixture
def suspects() -> tuple[SuspectLabel, ...]:
    """A label with predictions of two members, and a label of a study with a nasty id."""
    return (
        SuspectLabel(1, "11", FINDINGS[3], Severity.NORMAL_MILD, Severity.SEVERE, 0.0625, 0.75,
              {"sagittal_t2/net": (0.025, 0.9), NASTY: (0.1, 0.6)}),
        SuspectLabel(2, NASTY, FINDINGS[22], Severity.MODERATE, Severity.NORMAL_MILD, 0.125, 0.5,
              {"sagittal_t2/net": (0.125, 0.5)}),
    )  # fmt: skip


def _page(folder: Path, suspects: tuple[SuspectLabel, ...]) -> str:
    png = encode_png(np.eye(20, dtype=np.float32), (10.0, 10.0))
    mark = Mark(2.0, 3.0, "", NASTY, "canal", False)
    picture = SlicePicture(png, 10.0, 10.0, "nearest", ("A", "P"), (mark,))
    pictures = {finding_key(suspects[0]): [MontageRow(Plane.SAGITTAL_T2, NASTY, (picture, picture))]}
    write_review_page(folder / "worklist.html", suspects, pictures, num_labels=1234)
    return (folder / "worklist.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_and_escapes_everything(
    tmp_path: Path, suspects: tuple[SuspectLabel, ...]
) -> None:
    text = _page(tmp_path, suspects)
    check_self_contained(text)
    assert "prefers-color-scheme: dark" in text


def test_every_label_is_shown_with_the_given_and_the_other_grade(
    tmp_path: Path, suspects: tuple[SuspectLabel, ...]
) -> None:
    page = Page(_page(tmp_path, suspects))
    text = page.words
    assert "2 of 1,234 compared labels" in text
    assert "1 Spinal canal stenosis 1 Right subarticular stenosis" in text
    assert (
        "1 Spinal canal stenosis L4/L5 11 Given Other Grade Normal/Mild Severe Mean 0.062 0.750 "
        "sagittal_t2/net 0.025 0.900"
    ) in text
    assert "2 Right subarticular stenosis L3/L4" in text
    assert "No slice in the records shows this finding" in text
    assert page.pictures == ["Study 11, Sagittal T2/STIR, L4/L5, nearest"] * 2


def test_an_empty_list_makes_a_page(tmp_path: Path) -> None:
    write_review_page(tmp_path / "worklist.html", (), {}, num_labels=0)
    assert "No label could be compared" in (tmp_path / "worklist.html").read_text()


def test_the_table_holds_each_members_probabilities(
    tmp_path: Path, suspects: tuple[SuspectLabel, ...]
) -> None:
    write_review_table(tmp_path / "worklist.csv", suspects, ["sagittal_t2/net", NASTY])
    with (tmp_path / "worklist.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first.values()) == [
        "1", "11", "11_spinal_canal_stenosis_l4_l5", "spinal_canal_stenosis", "l4_l5", "Normal/Mild",
        "Severe", "0.9375", "0.0625", "0.7500", "0.0250", "0.9000", "0.1000", "0.6000",
    ]  # fmt: skip
    assert (second["label"], second["other"]) == ("Moderate", "Normal/Mild")
    assert (second[f"{NASTY}:given"], second[f"{NASTY}:other"]) == ("", "")
