"""Folds of a tiny grader, trained for an epoch: their tables give the losses in `fold.json`."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lumbar_tf.ensemble.loss_attribution import LossAttribution, attribute_loss, read_attribution
from lumbar_tf.inputs.record_source import RecordSource, wanted_records
from lumbar_tf.labels import FINDINGS, Condition, Level, Plane, finding_index
from lumbar_tf.tables.out_of_fold import align_members, placement_tables, read_out_of_fold_tables
from lumbar_tf.training.cross_validation import grader_jobs, run_training_job
from lumbar_tf.training.metadata import read_fold_metadata
from lumbar_tf.training.runs import PlaneRun
from tests.training.located_runs import FOLDS, open_located, write_found

MEMBER = "densenet_tiny"
CANAL = [row for row, finding in enumerate(FINDINGS) if finding.condition is Condition.SPINAL_CANAL_STENOSIS]
#: The localizer found no point of this level in the last study.
WITHHELD = ("c", finding_index(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5))


def _train(run: PlaneRun) -> str:
    (job,) = grader_jobs(run, tuple(FOLDS.values()))
    return run_training_job(job)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> PlaneRun:
    """Sagittal T2, three folds of one study each; the localizer's points are 3 mm off along each axis."""
    run = open_located(
        tmp_path_factory.mktemp("run"),
        Plane.SAGITTAL_T2,
        f"grader.backbones=[{MEMBER}]",
        "grader.crop.side_px=32",
        "grader.training.epochs=1",
    )
    for fold in FOLDS.values():
        miss_mm = np.full((len(Level), 3), 3.0)
        if fold == FOLDS[WITHHELD[0]]:
            miss_mm[WITHHELD[1]] = np.nan
        write_found(run, Plane.SAGITTAL_T2, fold, miss_mm=miss_mm)
    (run.directory / "run.json").write_text("{}")
    assert "is lost to points" in _train(run)
    return run


def _labels(run: PlaneRun, study: str) -> np.ndarray:
    (record,) = wanted_records(RecordSource(run.shards, (study,)))
    return record["labels"].numpy()[np.newaxis]


def _attribution_of_tables(run: PlaneRun, study: str, fold: int) -> LossAttribution:
    paths = placement_tables(run.fold_directory(MEMBER, fold) / "oof.csv")
    placed = np.stack(
        [align_members(read_out_of_fold_tables([path]), [study]).probabilities[0] for path in paths]
    )
    attribution = attribute_loss(_labels(run, study), placed)
    assert attribution is not None
    return attribution


def test_the_tables_of_a_fold_give_the_losses_of_its_file(run: PlaneRun) -> None:
    for study, fold in FOLDS.items():
        metadata = read_fold_metadata(run.fold_directory(MEMBER, fold))
        assert metadata is not None and metadata.loss_attribution is not None
        stored = read_attribution(metadata.loss_attribution)
        found = _attribution_of_tables(run, study, fold)
        for name in ("at_annotated", "in_annotated_slice", "at_predicted", "prior"):
            assert getattr(found, name) == pytest.approx(getattr(stored, name), abs=1e-5), name
        assert found.num_findings == stored.num_findings == (4 if study == WITHHELD[0] else 5)
        assert len({stored.at_annotated, stored.in_annotated_slice, stored.at_predicted}) == 3


def test_the_members_tables_have_all_folds_and_no_finding_that_cannot_be_compared(run: PlaneRun) -> None:
    *placed, predicted = (
        read_out_of_fold_tables([path]) for path in placement_tables(run.member_directory(MEMBER) / "oof.csv")
    )
    for (table,) in (*placed, predicted):
        assert table.model == f"sagittal_t2/{MEMBER}" and table.folds == FOLDS
    for tables in (*placed, predicted):
        is_graded = np.isfinite(align_members(tables, list(FOLDS)).probabilities[0]).all(axis=-1)
        expected = np.zeros(is_graded.shape, bool)
        expected[:, CANAL] = True
        expected[list(FOLDS).index(WITHHELD[0]), WITHHELD[1]] = False
        np.testing.assert_array_equal(is_graded, expected)


def test_patterns_of_out_of_fold_tables_match_none_of_the_others(run: PlaneRun) -> None:
    names = {path.name for path in run.runs.rglob("oof*.csv")}
    assert names == {"oof.csv", "oof_annotated.csv", "oof_annotated_slice.csv"}
    for pattern in ("*/*/oof.csv", "*/*/fold*/oof.csv"):
        assert {path.name for path in run.runs.glob(pattern)} == {"oof.csv"}


def test_a_run_without_these_tables_is_done_and_gets_them_by_predicting_again(run: PlaneRun) -> None:
    """Last, because it changes the run."""
    folders = [run.member_directory(MEMBER), *(run.fold_directory(MEMBER, fold) for fold in FOLDS.values())]
    texts = {path: path.read_text() for folder in folders for path in placement_tables(folder / "oof.csv")}
    weights = [path.stat().st_mtime_ns for path in run.runs.rglob("weights.weights.h5")]
    for folder in folders:
        for path in placement_tables(folder / "oof.csv")[:2]:
            path.unlink()
    _train(run)
    assert not list(run.runs.rglob("oof_annotated*.csv"))
    # As the message of `evaluate --points` says.
    for folder in folders[1:]:
        (folder / "oof.csv").unlink()
    _train(run)
    assert [path.stat().st_mtime_ns for path in run.runs.rglob("weights.weights.h5")] == weights
    for path, text in texts.items():
        rows, expected = (
            np.genfromtxt(lines.splitlines(), delimiter=",", skip_header=1, usecols=(1, 2, 3))
            for lines in (path.read_text(), text)
        )
        assert_allclose(rows, expected, atol=1e-6)
