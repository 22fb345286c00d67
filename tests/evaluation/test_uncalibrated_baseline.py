from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.evaluation.cells import CONDITIONS, EvaluatedTable
from lumbar_tf.evaluation.uncalibrated_baseline import (
    calibration_changes,
    find_tables,
    read_before,
    rows_before,
)
from lumbar_tf.labels import Condition
from lumbar_tf.tables.out_of_fold import write_table
from tests.graded_cohort import draw_labels, make_study_ids


@pytest.fixture
def judged() -> EvaluatedTable:
    """Six studies of the canal and the left foramen: answers are right by 0.8."""
    labels = draw_labels(6, num_graded=10)
    answers = np.where(np.eye(3)[labels] > 0, 0.8, 0.1)
    return EvaluatedTable(labels, answers, answers)


def test_the_members_plain_mean_is_taken_of_the_studies_that_are_judged(tmp_path: Path) -> None:
    """By hand: the geometric means of 0.8, 0.1, 0.1 and 0.2, 0.4, 0.4 are as 0.4 to 0.2 to 0.2."""
    ids = make_study_ids(3)
    for name, row, count in (("a", (0.8, 0.1, 0.1), 3), ("b", (0.2, 0.4, 0.4), 2)):
        write_table(tmp_path / f"{name}.csv", ids[:count], np.tile(np.array(row), (count, 25, 1)), model=name)
    mean = read_before(find_tables(str(tmp_path / "*.csv")), ids[1:])
    assert mean[0, 0] == pytest.approx([0.5, 0.25, 0.25])
    assert mean[1, 24] == pytest.approx([0.8, 0.1, 0.1])


def test_changes_are_of_the_rows_that_both_answer(judged: EvaluatedTable) -> None:
    before = np.full((6, 25, 3), 1 / 3)
    before[0, :5] = np.nan
    canal, left = calibration_changes(judged, before)
    assert (canal.condition, canal.num_rows) == (Condition.SPINAL_CANAL_STENOSIS, 25)
    assert (left.condition, left.num_rows) == (Condition.LEFT_NEURAL_FORAMINAL_NARROWING, 30)
    # By hand: (1 - 1/3)^2 + 2 (1/3)^2 and (1 - 0.8)^2 + 2 (0.1)^2.
    assert canal.brier_before == pytest.approx(2 / 3) and canal.brier == pytest.approx(0.06)
    # One bin holds every row of a class: the error is |1/3 - its share|, meaned over classes.
    labels = judged.labels[1:, :5]
    gaps = [abs(1 / 3 - float((labels == grade).mean())) for grade in range(3)]
    assert canal.error_before == pytest.approx(np.mean(gaps))
    gaps = [0.2 * (labels == grade).mean() + 0.1 * (labels != grade).mean() for grade in range(3)]
    assert canal.error == pytest.approx(np.mean(gaps))


def test_rows_belong_together(judged: EvaluatedTable) -> None:
    before = judged.answers * 0.5
    labels, answers, earlier = rows_before(judged, before, CONDITIONS["spinal_canal_stenosis"])
    np.testing.assert_array_equal(earlier, answers * 0.5)
    np.testing.assert_array_equal(answers.argmax(axis=-1), labels)


def test_a_pattern_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must match a file"):
        find_tables(str(tmp_path / "*.csv"))
