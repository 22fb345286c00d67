"""The command, on records of a few synthetic studies and tables whose doubts are known."""

import csv
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.cli.command import UsageError
from lumbar_tf.labels import FINDINGS, MISSING_LABEL
from lumbar_tf.records.build import BuildTask, run_build_task
from lumbar_tf.records.manifest import BuildOptions
from lumbar_tf.records.schema import PixelEncoding
from lumbar_tf.review_labels import ReviewLabelsOptions, run_review_labels
from lumbar_tf.synthetic import CohortOptions, write_cohort
from lumbar_tf.tables.folds import read_fold_table
from lumbar_tf.tables.labels import read_labels
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three studies and, in `records`, their records in two folds."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, CohortOptions(num_studies=3, seed=5))
    options = BuildOptions(studies_per_shard=2, num_folds=2, fold_seed=0, codec=PixelEncoding.RAW)
    run_build_task(BuildTask(sources=[folder], out=folder / "records", options=options))
    return folder


def _options(cohort: Path, out: Path, **changed: object) -> ReviewLabelsOptions:
    given = {
        "oof": str(out / "*.csv"),
        "labels": str(cohort / "train.csv"),
        "records": cohort / "records",
        "runs": out / "runs",
        "out": out / "list",
        "most": 2,
    }
    return ReviewLabelsOptions(**{**given, **changed})


def _write_oof(cohort: Path, path: Path, wrong: dict[tuple[str, int], float], *, fold_shift: int = 0) -> None:
    """A member that gives each label 0.9, but those in `wrong` as much as is said there."""
    study_ids, labels = read_labels(cohort / "train.csv")
    folds = read_fold_table(cohort / "records" / "folds.csv")
    probabilities = np.full((len(study_ids), 25, 3), 0.05)
    for place, study_id in enumerate(study_ids):
        for row, label in enumerate(labels[place]):
            given = wrong.get((study_id, row), 0.9)
            probabilities[place, row] = (1 - given) / 2
            probabilities[place, row, max(label, 0)] = given
    shifted = [folds[each] + fold_shift for each in study_ids]
    write_out_of_fold_table(path, study_ids, probabilities, folds=shifted, model="sagittal_t2/net")


def test_the_worst_labels_come_first_on_the_list_and_on_the_page(cohort: Path, tmp_path: Path) -> None:
    study_ids, labels = read_labels(cohort / "train.csv")
    assert labels[0, 3] != MISSING_LABEL and labels[2, 7] != MISSING_LABEL
    _write_oof(cohort, tmp_path / "oof.csv", {(study_ids[2], 7): 0.1, (study_ids[0], 3): 0.2})
    run_review_labels(_options(cohort, tmp_path))
    with (tmp_path / "list" / "worklist.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [f"{study_ids[2]}_{FINDINGS[7].name}", f"{study_ids[0]}_{FINDINGS[3].name}"]
    assert [row["row_id"] for row in rows] == expected
    assert [float(row["disagreement"]) for row in rows] == pytest.approx([0.9, 0.8])
    page = (tmp_path / "list" / "worklist.html").read_text()
    assert page.count("<article") == 2 and page.count("<img") >= 4
    assert str(tmp_path) not in page
    assert "Synthetic studies" in page


def test_a_table_of_other_folds_is_refused_and_leaves_nothing(cohort: Path, tmp_path: Path) -> None:
    _write_oof(cohort, tmp_path / "oof.csv", {}, fold_shift=1)
    with pytest.raises(ValueError, match="held its study out"):
        run_review_labels(_options(cohort, tmp_path))
    assert not (tmp_path / "list").exists()


def test_a_pattern_that_matches_nothing_is_a_usage_error(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`oof` must match a file"):
        run_review_labels(_options(cohort, tmp_path, oof=str(tmp_path / "none" / "*.csv")))
