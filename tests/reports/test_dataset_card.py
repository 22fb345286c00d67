"""The dataset card: counts of the manifest, and no id of a study."""

from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import RejectEntry, StudyEntry, write_manifest
from lumbar_tf.reports.dataset_card import RecordsSummary, summarise_records, write_dataset_card
from lumbar_tf.tables.folds import write_folds
from lumbar_tf.tables.labels import write_record_labels
from tests.records.made_manifests import make_manifest
from tests.reports.html_page import Page, check_self_contained

_IDS = [f"77700{place}" for place in range(6)]


def _study(study_id: str, vendor: str, planes: tuple[Plane, ...]) -> StudyEntry:
    series = tuple(
        SeriesSummary(
            series_id=f"{study_id}88",
            plane=plane,
            reason="",
            num_slices=10,
            rows=320,
            columns=320,
            row_spacing_mm=0.6,
            column_spacing_mm=0.6,
            gap_mm=4.0,
            vendor=vendor,
            field_strength_tesla=1.5,
            contrast="",
        )
        for plane in planes
    )
    group = _IDS[0] if study_id == _IDS[1] else study_id
    slices = {plane.value: 10 for plane in planes}
    return StudyEntry(
        study_id=study_id, patient_group=group, source_digest="", num_slices=slices, series=series
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six studies of five patients, one without axial images; a file and a whole study were left out."""
    folder = tmp_path_factory.mktemp("records")
    studies = tuple(_study(study, "ge", tuple(Plane)) for study in _IDS[:5])
    studies += (_study(_IDS[5], "siemens", (Plane.SAGITTAL_T1, Plane.SAGITTAL_T2)),)
    rejects = tuple(
        RejectEntry(study_id=study, series_id="", file_name="a.dcm", reason=reason, message="a rule")
        for study, reason in ((_IDS[0], "truncated"), ("666", "no_slices"), ("", "not_dicom"))
    )
    manifest = make_manifest({}).model_copy(update={"studies": studies, "rejects": rejects})
    write_manifest(folder, manifest)
    labels = {study: np.full(25, place % 3, np.int8) for place, study in enumerate(_IDS[:4])}
    labels[_IDS[0]][:10] = -1
    write_record_labels(folder, labels)
    write_folds(folder / "folds.csv", {study: place // 4 for place, study in enumerate(_IDS)})
    return folder


@pytest.fixture(scope="module")
def summary(records: Path) -> RecordsSummary:
    return summarise_records(records)


def test_counts_are_those_of_the_manifest_and_its_tables(summary: RecordsSummary) -> None:
    assert (summary.census.num_studies, summary.num_patients, summary.num_left_out) == (6, 5, 1)
    assert summary.num_without == {Plane.SAGITTAL_T1: 0, Plane.SAGITTAL_T2: 0, Plane.AXIAL_T2: 1}
    assert {cases.code: cases.count for cases in summary.census.left_out} == {
        "truncated": 1,
        "no_slices": 1,
        "not_dicom": 1,
    }
    counts = np.array(list(summary.label_counts.values()))
    assert counts.sum() == 4 * 25 and summary.num_missing_labels == 10
    assert counts.sum(axis=0).tolist() == [15 + 25, 25, 25, 10]
    assert summary.fold_sizes == {0: 4, 1: 2}
    assert list(summary.digests) == ["manifest.json", "labels.csv", "folds.csv"]


def test_the_manifest_alone_is_enough(records: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((records / "manifest.json").read_bytes())
    alone = summarise_records(tmp_path / "manifest.json")
    assert alone.census.num_studies == 6 and not alone.label_counts and not alone.fold_sizes
    write_dataset_card(tmp_path / "card.html", alone)


def test_the_card_shows_counts_and_no_study(summary: RecordsSummary, tmp_path: Path) -> None:
    write_dataset_card(tmp_path / "card.html", summary)
    text = (tmp_path / "card.html").read_text(encoding="utf-8")
    check_self_contained(text)
    words = Page(text).words
    for expected in (
        "6 studies",
        "5 patients",
        "no_slices fault 1 1",
        "siemens",
        "4 studies, whole patients",
    ):
        assert expected in words
    assert summary.digests["manifest.json"] in words and "Blank: ages, sexes" in words
    # Digests are hexadecimal: ids could occur in them by chance.
    for digest in summary.digests.values():
        words = words.replace(digest, "")
    assert not any(name in words for name in (*_IDS, "666", "a.dcm"))


def test_a_reason_code_of_a_later_version_is_refused(tmp_path: Path) -> None:
    reject = RejectEntry(study_id="1", series_id="", file_name="", reason="too_new", message="")
    write_manifest(tmp_path, make_manifest({"2": "2"}).model_copy(update={"rejects": (reject,)}))
    with pytest.raises(ValueError, match=r"reason codes of this version\. Received: 'too_new'"):
        summarise_records(tmp_path)
