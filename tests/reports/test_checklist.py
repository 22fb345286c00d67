"""Reporting checklists: what is filled, from which file, and which blanks are named."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lumbar_tf.config import default_config_path, dump_config, load_plane_config
from lumbar_tf.evaluation.evaluation_run import evaluate_files
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import write_manifest
from lumbar_tf.reports.checklist import (
    BLANK,
    Input,
    ProjectFiles,
    Status,
    fact_templates,
    fill_checklist,
    find_facts,
    read_checklists,
    read_project,
    write_checklists,
)
from lumbar_tf.reports.dataset_card import summarise_records
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from tests.graded_cohort import draw_answers, draw_labels, make_study_ids, write_labels
from tests.records.made_manifests import make_manifest
from tests.reports.html_page import Page, check_self_contained

_IDS = make_study_ids(20)
CLAIM, TRIPOD = read_checklists()


def _write_run(runs: Path, **origin: Any) -> None:
    config = load_plane_config(default_config_path(Plane.SAGITTAL_T2))
    member = runs / "sagittal_t2" / "localizer"
    member.mkdir(parents=True)
    (runs / "sagittal_t2" / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    content = {"studies": _IDS, "packages": {"lumbar_tf": "0.0.1", "tensorflow": "2.20.0"}, **origin}
    (runs / "sagittal_t2" / "run.json").write_text(json.dumps(content), encoding="utf-8")
    folds = {"0": {"device": "A GPU"}, "1": {"device": "A GPU"}}
    (member / "run.json").write_text(json.dumps({"folds": folds}), encoding="utf-8")


def _write_bundle(folder: Path) -> Path:
    content = {
        "version": 3,
        "training": {"data": "A <b>cohort</b> of two hospitals", "is_synthetic": False},
        "record_schema_version": "2.0.0",
        "members": ["sagittal_t2/one", "sagittal_t2/two"],
        "planes": {"sagittal_t2": {"num_folds": 5}},
        "findings": [""] * 25,
        "severities": ["normal_mild", "moderate", "severe"],
        "flags": ["no_axial_t2"],
        "prediction_set_coverage": 0.9,
        "intended_use": "Research. Not a medical device.",
    }
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "assets.extra" / "ensemble.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> ProjectFiles:
    folder = tmp_path_factory.mktemp("project")
    labels = draw_labels(20)
    write_labels(folder / "train.csv", _IDS, labels)
    write_out_of_fold_table(folder / "one.csv", _IDS, draw_answers(labels, sharpness=1.0, seed=0))
    lines = ["study_id,site", *(f"{study},{'ab'[place % 2]}" for place, study in enumerate(_IDS))]
    (folder / "groups.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lumbar_tf.evaluation.evaluation_run.draw_sheets", lambda *_, **__: {})
        paths = folder / "one.csv", [folder / "train.csv"], folder
        evaluate_files(*paths, groups=folder / "groups.csv", num_resamples=10)
    _write_run(folder / "runs")
    write_manifest(folder, make_manifest({study: study for study in _IDS}))
    return read_project(
        records=summarise_records(folder),
        runs=folder / "runs",
        bundle=_write_bundle(folder / "1"),
        metrics=folder / "metrics.json",
    )


def test_the_checklists_have_the_items_of_their_references() -> None:
    assert [item.number for item in CLAIM.items] == [str(number) for number in range(1, 45)]
    numbers = [item.number for item in TRIPOD.items]
    assert len(set(numbers)) == len(numbers) == 52
    assert list(dict.fromkeys(int(number.rstrip("abcdefg")) for number in numbers)) == list(range(1, 28))


def test_every_fact_exists_and_is_used() -> None:
    used = {key for checklist in (CLAIM, TRIPOD) for item in checklist.items for key in item.facts}
    assert used == set(fact_templates())


def test_without_files_every_item_is_a_named_blank() -> None:
    for checklist in (CLAIM, TRIPOD):
        for entry in fill_checklist(checklist, ProjectFiles()):
            assert entry.status is Status.BLANK and entry.facts == ()
            assert entry.blank.startswith(BLANK)
            for source in {fact_templates()[key].source for key in entry.item.facts}:
                assert f"--{source.value}" in entry.blank


def test_facts_are_those_of_the_files(project: ProjectFiles) -> None:
    facts = {key: fact.text for key, fact in find_facts(project).items()}
    metrics = project.metrics
    assert metrics is not None
    assert facts["cohort"] == "20 studies of 20 patients."
    assert facts["origin"] == "A <b>cohort</b> of two hospitals"
    assert "2 members (sagittal_t2/one, sagittal_t2/two)" in facts["ensembling"]
    assert "the mean of its folds (5)" in facts["ensembling"]
    assert f"Score {metrics['score']['value']:.4f} [{metrics['score']['low']:.4f}" in facts["scores"]
    assert facts["sizes_of_groups"] == "site, a: 10 studies. site, b: 10 studies."
    assert "10 bootstrap resamples" in facts["uncertainty"]
    assert facts["run_packages"] == "lumbar_tf 0.0.1, tensorflow 2.20.0."
    assert facts["devices"] == "Trained on A GPU."
    config = project.runs[0].config
    assert f"{config.grader.training.epochs} epochs" in facts["fitting"]
    assert f"square of {config.grader.crop.side_mm:g} mm" in facts["inputs"]
    # The manifest of this test has neither labels nor folds.
    assert "grades" not in facts and "folds" not in facts


def test_an_item_that_authors_complete_is_filled_in_part(project: ProjectFiles) -> None:
    by_number = {entry.item.number: entry for entry in fill_checklist(CLAIM, project)}
    assert by_number["23"].status is Status.FILLED and by_number["23"].blank == ""
    assert by_number["7"].status is Status.IN_PART
    assert by_number["7"].blank == f"{BLANK}: institutions, dates and permissions"
    assert by_number["14"].status is Status.BLANK and by_number["14"].blank == BLANK


def test_a_file_of_an_earlier_version_leaves_a_blank(project: ProjectFiles) -> None:
    metrics = {key: value for key, value in (project.metrics or {}).items() if key != "num_resamples"}
    facts = find_facts(ProjectFiles(metrics=metrics))
    assert "uncertainty" not in facts and "scores" in facts
    assert all(fact_templates()[key].source is Input.METRICS for key in facts)


def test_the_page_and_the_table_agree(project: ProjectFiles, tmp_path: Path) -> None:
    filled = write_checklists(tmp_path, project)
    text = (tmp_path / "checklist.html").read_text(encoding="utf-8")
    check_self_contained(text)
    words = Page(text).words
    rows = list(csv.DictReader((tmp_path / "checklist.csv").open(encoding="utf-8")))
    assert len(rows) == 44 + 52
    entries = [entry for entries in filled.values() for entry in entries]
    for row, entry in zip(rows, entries, strict=True):
        assert (row["item"], row["status"]) == (entry.item.number, entry.status.value)
        assert row["subject"] in words and row["blank"][1:] in words
        for fact in entry.facts:
            assert fact.text in row["content"] and f"{fact.text} [{fact.files}]" in words
    assert not any(study in words for study in _IDS)


@pytest.mark.parametrize("content", ["[]", "{", '"a"'])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"metrics\.json must"):
        read_project(metrics=tmp_path / "metrics.json")


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"with its config.yaml. Received"):
        read_project(runs=tmp_path)


def test_synthetic_studies_are_named(tmp_path: Path) -> None:
    _write_run(tmp_path / "runs", is_synthetic=True)
    write_checklists(tmp_path, read_project(runs=tmp_path / "runs"))
    assert "Synthetic studies" in (tmp_path / "checklist.html").read_text(encoding="utf-8")
