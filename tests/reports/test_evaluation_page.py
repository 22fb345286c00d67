from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.evaluation.evaluation_run import EvaluationRun, evaluate_files
from lumbar_tf.labels import Severity
from lumbar_tf.reports.evaluation_page import write_evaluation_page
from lumbar_tf.tables.groups import Grouping
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from lumbar_tf.tables.set_tables import write_set_table
from tests.graded_cohort import draw_labels, make_study_ids, write_labels
from tests.reports.html_page import Page, check_self_contained

_NASTY = "<script>alert(1)</script>"
_IDS = [*make_study_ids(39), _NASTY]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> EvaluationRun:
    """Canal and left foramen only, two tables, a small group, a study with a nasty id, which is the worst."""
    folder = tmp_path_factory.mktemp("cohort")
    labels = draw_labels(40, num_graded=10)
    labels[39, 0] = Severity.SEVERE
    write_labels(folder / "train.csv", _IDS, labels)
    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        probabilities = generator.dirichlet([1, 1, 1], (40, 25))
        probabilities[39, 0] = [1 - 2e-9, 1e-9, 1e-9]
        write_out_of_fold_table(folder / f"{name}.csv", _IDS, probabilities)
    sets = np.zeros((40, 25, 3), bool)
    sets[..., :2] = True
    write_set_table(folder / "sets.csv", _IDS, sets, coverage=0.9)
    group_of = {study: "ge" if index < 35 else _NASTY for index, study in enumerate(_IDS)}
    return evaluate_files(
        [folder / "one.csv", folder / "two.csv"],
        [folder / "train.csv"],
        folder / "out",
        members=[folder / "two.csv"],
        sets=folder / "sets.csv",
        groupings=[Grouping("Vendor", group_of, ("ge", _NASTY))],
        num_resamples=20,
    )


@pytest.fixture(scope="module")
def text(evaluated: EvaluationRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "evaluation.html"
    write_evaluation_page(path, evaluated)
    return path.read_text(encoding="utf-8")


def test_the_page_loads_nothing_and_escapes_everything(text: str) -> None:
    check_self_contained(text)
    assert "prefers-color-scheme: dark" in text


def test_the_page_holds_the_figures(text: str, evaluated: EvaluationRun) -> None:
    words = Page(text).words
    score = evaluated.card.scores["score"]
    assert f"{score.value:.4f} score {score.low:.4f} to {score.high:.4f}" in words
    assert "No labels for subarticular: the score is the mean of the other terms." in words
    cell = evaluated.card.findings[3]
    counts, loss = " ".join(map(str, cell.counts)), cell.metrics["log_loss"]
    assert f"L4/L5 {counts} {loss.value:.3f} {loss.low:.3f} to {loss.high:.3f}" in words
    point = cell.operating_points["severe_fifth"]
    assert f"{point.sensitivity.value:.2f} {point.sensitivity.low:.2f} to" in words
    assert "P(Severe) is at least 0.2: missing a severe finding counts four times a false alarm" in words
    assert "two" in words and "minus the first" in words
    difference = evaluated.comparison[1].difference["score"]
    assert f"{difference.value:+.4f} {difference.low:+.4f} to {difference.high:+.4f}" in words
    assert f"{_NASTY} (small) 5" in words


def test_the_page_has_the_coverage_of_the_prediction_sets(text: str, evaluated: EvaluationRun) -> None:
    words = Page(text).words
    assert "Prediction sets The grades that a reader may give" in words
    assert "(wanted: 90% of each grade)" in words
    canal = evaluated.sets.families[0]
    normal, moderate, severe = canal.counts
    assert f"Canal {normal} 1.000 1.000 to 1.000 {moderate} 1.000 1.000 to 1.000 {severe} 0.000" in words
    assert "2.000 2.000 to 2.000 0.000 0.000 to 0.000 -" in words
    for heading in ("Levels, all conditions pooled", "Spinal canal stenosis", "Vendor: ge"):
        assert f"{heading} Normal/Mild Covered Moderate Covered Severe Covered Mean size" in words


def test_the_worst_case_is_named_and_conditions_without_labels_are_not(text: str) -> None:
    page = Page(text)
    words = page.words
    cost = -4 * np.log(1e-9)
    assert f"{_NASTY} Spinal canal stenosis L1/L2 Severe Normal/Mild 1.000 0.000 0.000 {cost:.2f}" in words
    assert "Left neural foraminal narrowing" in words
    assert "subarticular stenosis" not in words
    assert len(page.pictures) == 16 and "ROC curve, Spinal canal stenosis: severe" in page.pictures


def test_without_reports_the_page_names_the_command_that_writes_them(text: str) -> None:
    assert "No reports of these studies were found" in Page(text).words
    assert "<a " not in text and "Synthetic" not in text


def test_worst_cases_link_to_findings_in_the_reports_of_their_studies(
    evaluated: EvaluationRun, tmp_path: Path
) -> None:
    reports = tmp_path / "predictions" / "reports"
    reports.mkdir(parents=True)
    for study in _IDS[:20]:
        (reports / f"{study}.html").touch()
    page = tmp_path / "evaluation" / "evaluation.html"
    write_evaluation_page(
        page, evaluated, reports=reports, model_version="7", training_note=_NASTY, is_synthetic=True
    )
    text = page.read_text(encoding="utf-8")
    check_self_contained(text)
    links = [attributes["href"] for tag, attributes in Page(text).tags if tag == "a"]
    expected = [
        f"../predictions/reports/{case.study_id}.html#{case.finding.name}"
        for case in evaluated.worst
        if case.study_id in _IDS[:20]
    ]
    assert links == expected and expected
    words = Page(text).words
    assert f"{len(evaluated.worst) - len(expected)} of them have no report" in words
    assert "predictions of model version 7" in words and "Synthetic studies" in words
    assert f"refers to a patient {_NASTY} " in words


def test_calibration_is_shown_before_and_after(text: str, evaluated: EvaluationRun) -> None:
    canal, left = evaluated.calibration
    for row in (canal, left):
        figures = (row.error_before, row.error, row.brier_before, row.brier)
        line = " ".join(f"{value:.3f}" for value in figures)
        assert f"{row.condition.title} {row.num_rows} {line}" in Page(text).words
    pictures = Page(text).pictures
    assert "Reliability diagram before and after calibration, Spinal canal stenosis: Severe" in pictures
