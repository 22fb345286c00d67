import json
import time
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.ensemble.loss_attribution import LossAttribution
from lumbar_tf.evaluation.metrics import weighted_log_loss
from lumbar_tf.reports.training_page import write_training_index, write_training_pages
from lumbar_tf.reports.training_summary import summarize_member
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from lumbar_tf.training.metadata import write_loss_attribution
from lumbar_tf.training.runs import LOCALIZER, PlaneRun
from tests.graded_cohort import draw_labels
from tests.reports.html_page import Page, check_self_contained
from tests.reports.trained_run import BACKBONE, NASTY, STUDIES, answers, make_run, train_fold, write_error


@pytest.fixture
def run(tmp_path: Path) -> PlaneRun:
    return make_run(tmp_path)


def _read(run: PlaneRun, member: str) -> str:
    write_training_pages(run, member)
    return (run.member_directory(member) / "training.html").read_text(encoding="utf-8")


def test_the_page_of_a_grader_holds_its_folds_curves_and_scores(run: PlaneRun) -> None:
    for fold in (0, 2):
        train_fold(run, BACKBONE, fold)
    text = _read(run, BACKBONE)
    check_self_contained(text)
    words = Page(text).words
    assert "2 of 3 folds done 8 epochs trained 0.5 min in epochs" in words
    # 20 studies in batches of 4 are 5 steps; the median epoch after the first takes 2 s.
    assert "fold 0 20 0 10 4 4 0.250 5 2.50 10.0 0 CPU" in words
    assert "fold 1 20 0 10 0 - - 5 - - - - not started" in words
    for title in ("Loss", "Weighted log loss", "Learning rate", "Seconds per epoch"):
        assert f"<h3>{title}</h3>" in text
    assert 'aria-label="Weighted log loss by epoch. fold 0, held out ends at 0.3; fold 2, held out' in text
    assert text.count('class="line train"') == 6 and text.count('class="line held"') == 4


def test_the_score_is_the_metric_over_the_finished_folds(run: PlaneRun) -> None:
    for fold in (0, 2):
        train_fold(run, BACKBONE, fold)
    (canal,) = summarize_member(run, BACKBONE).out_of_fold.families
    done = [study for study in STUDIES if run.folds[study] != 1]
    labels = draw_labels(len(STUDIES))[[STUDIES.index(study_id) for study_id in done]]
    expected = weighted_log_loss(labels[:, :5], answers(done)[:, :5])
    assert canal.cell.metrics["log_loss"].value == pytest.approx(expected)
    assert canal.confusion.sum() == sum(canal.cell.counts) == 5 * len(done)
    # Every answer but the nasty study's is right.
    assert canal.confusion.trace() >= 5 * (len(done) - 1)
    words = Page(_read(run, BACKBONE)).words
    prior = canal.cell.metrics["prior_log_loss"]
    assert f"canal: weighted log loss out of fold, prior {prior.value:.3f}" in words
    assert f"{NASTY} Spinal canal stenosis" in words
    assert "Canal: label (rows)" in words and "Foraminal: label (rows)" not in words


def test_a_score_that_is_not_below_the_prior_is_named_with_its_likely_cause(run: PlaneRun) -> None:
    train_fold(run, BACKBONE, 0)
    summary = summarize_member(run, BACKBONE)
    (canal,) = summary.out_of_fold.families
    loss, prior = (canal.cell.metrics[name].value for name in ("log_loss", "prior_log_loss"))
    assert bool(summary.diagnosis) == (loss >= prior)
    # Answers that are certain and wrong.
    held_out = [study for study in STUDIES if run.folds[study] == 1]
    train_fold(run, BACKBONE, 1)
    wrong = np.roll(answers(held_out), 1, axis=-1) ** 8
    wrong /= wrong.sum(axis=-1, keepdims=True)
    path = run.fold_directory(BACKBONE, 1) / "oof.csv"
    write_out_of_fold_table(path, held_out, wrong, folds=[1] * len(held_out), model=run.member_name(BACKBONE))
    summary = summarize_member(run, BACKBONE)
    beginning = (
        "The weighted log loss out of fold is not below that of the prior by condition and level: canal "
    )
    assert summary.diagnosis.startswith(beginning)
    assert "Likely causes: too few epochs" in summary.diagnosis
    assert summary.diagnosis.endswith("or points that are off.")
    assert summary.diagnosis in Page(_read(run, BACKBONE)).words
    # What points cost shortens the list, or ends it.
    directory = run.fold_directory(BACKBONE, 1)
    for attribution, ending in (
        (LossAttribution(50, 1.0, 1.0, 1.01, (50, 0, 0, 0), prior=0.8, auc=0.9), "; points cost little."),
        (LossAttribution(50, 1.0, 1.5, 1.5, (50, 0, 0, 0), prior=0.8, auc=0.9), "or on larger images."),
        (LossAttribution(50, 1.0, 1.0, 1.0, (50, 0, 0, 0), prior=0.8, auc=0.5), "too high, look the same."),
    ):
        write_loss_attribution(directory, attribution)
        diagnosis = summarize_member(run, BACKBONE).diagnosis
        assert diagnosis.startswith(beginning) and diagnosis.endswith(ending)
        assert diagnosis.count("Likely cause") == 1


def test_what_points_cost_is_a_sentence_of_the_page(run: PlaneRun) -> None:
    for fold, loss in ((0, 0.4), (1, 0.6)):
        train_fold(run, BACKBONE, fold)
        attribution = LossAttribution(50, loss, loss + 0.01, loss + 0.03, (40, 10, 0, 0))
        write_loss_attribution(run.fold_directory(BACKBONE, fold), attribution)
    words = Page(_read(run, BACKBONE)).words
    assert "0.030 of 0.530 is lost to points: 0.010 in the slice, 0.020 to the choice of the slice" in words
    assert "annotated one for 80.0% of 100 findings" in words
    assert summarize_member(run, BACKBONE).diagnosis == ""
    attribution = LossAttribution(50, 0.4, 0.41, 0.7, (5, 5, 40, 0))
    write_loss_attribution(run.fold_directory(BACKBONE, 0), attribution)
    words = Page(_read(run, BACKBONE)).words
    assert "Likely cause of the loss: the choice of the slice: give the graders more slices" in words


def test_the_page_of_a_localizer_holds_its_error_by_level(run: PlaneRun) -> None:
    train_fold(run, LOCALIZER, 0)
    assert "Available when all folds are done." in _read(run, LOCALIZER)
    write_error(run)
    text = _read(run, LOCALIZER)
    check_self_contained(text)
    words = Page(text).words
    assert "median error 5.0 mm, 100.0% within 10 mm, 99.8% nearest to their own level, 2 without" in words
    assert "L1/L2 50 3.0 mm 3.0 mm 0.0% 100.0% 0.0% 0.0% 0.0%" in words
    assert "L5/S1 50 7.0 mm 7.0 mm 0.0% 0.0% 100.0% 0.0% 0.0%" in words


def test_a_run_without_finished_epochs_has_a_page(run: PlaneRun) -> None:
    words = Page(_read(run, BACKBONE)).words
    assert "0 of 3 folds done" in words and "No epoch has finished yet." in words
    assert "No fold with labels has been predicted yet." in words


def test_an_older_runs_error_without_levels_and_records_without_labels_make_pages(run: PlaneRun) -> None:
    train_fold(run, LOCALIZER, 0)
    error = {"num_points": 9, "num_withheld": 0, "median_mm": 1.0, "within_10_mm": 1.0, "own_level": 1.0}
    (run.member_directory(LOCALIZER) / "error.json").write_text(json.dumps(error))
    assert "9 annotated points: median error 1.0 mm" in Page(_read(run, LOCALIZER)).words
    (run.records / "labels.csv").unlink()
    train_fold(run, BACKBONE, 0)
    assert "No fold with labels has been predicted yet." in Page(_read(run, BACKBONE)).words


def test_the_index_links_to_every_page_and_to_the_pages_of_other_commands(run: PlaneRun) -> None:
    train_fold(run, BACKBONE, 0)
    write_error(run)
    page = run.runs.parent / "evaluation" / "evaluation.html"
    page.parent.mkdir()
    page.touch()
    write_training_pages(run, BACKBONE, is_synthetic=True)
    write_training_pages(run, LOCALIZER, is_synthetic=True)
    index = write_training_index(run.runs, is_synthetic=True)
    text = index.read_text(encoding="utf-8")
    check_self_contained(text)
    parsed = Page(text)
    assert "sagittal_t2/localizer 0 of 3 0 0.0 median error 5.0 mm not yet" in parsed.words
    assert f"sagittal_t2/{BACKBONE} 1 of 3 4 0.2 weighted log loss canal" in parsed.words
    assert "Synthetic studies" in parsed.words
    links = [attributes["href"] for tag, attributes in parsed.tags if tag == "a"]
    assert len(links) == 3
    for link in links:
        assert (index.parent / str(link)).resolve().is_file(), link
    of_member = Page((run.member_directory(BACKBONE) / "training.html").read_text())
    for tag, attributes in of_member.tags:
        if tag == "a":
            assert (run.member_directory(BACKBONE) / str(attributes["href"])).resolve().is_file()


def test_a_page_is_drawn_in_less_than_two_seconds(run: PlaneRun) -> None:
    for fold in range(3):
        train_fold(run, BACKBONE, fold, num_epochs=100)
    _read(run, BACKBONE)
    before = time.process_time()
    text = _read(run, BACKBONE)
    assert time.process_time() - before < 2.0
    assert len(text) < 200_000


def test_the_page_contains_no_path_except_those_in_the_configuration(run: PlaneRun) -> None:
    train_fold(run, BACKBONE, 0)
    assert str(run.runs) not in _read(run, BACKBONE)
