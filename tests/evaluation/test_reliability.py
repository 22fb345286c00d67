from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.calibration import calibration_curve

from lumbar_tf.evaluation.evaluated_table import CONDITIONS, EvaluatedTable
from lumbar_tf.evaluation.reliability import (
    calibration_changes,
    classwise_calibration_error,
    common_rows,
    find_tables,
    read_uncalibrated,
    reliability_bins,
)
from lumbar_tf.labels import Condition
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from tests.graded_cohort import draw_labels, make_study_ids


def _table(seed: int, temperature: float = 1.0, num_rows: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from true probabilities, and those probabilities sharpened by `temperature`."""
    generator = np.random.default_rng(seed)
    truth = generator.dirichlet([2.0, 1.0, 0.5], num_rows)
    labels = (generator.random((num_rows, 1)) > truth.cumsum(axis=1)[:, :2]).sum(axis=1)
    sharpened = truth ** (1 / temperature)
    return labels, sharpened / sharpened.sum(axis=1, keepdims=True)


def test_bins_equal_scikit_learns_calibration_curve() -> None:
    labels, probabilities = _table(5, temperature=0.6)
    bins = reliability_bins(labels == 1, probabilities[:, 1], num_bins=10)
    observed, predicted = calibration_curve(labels == 1, probabilities[:, 1], n_bins=10)
    filled = bins.counts > 0
    assert_allclose(bins.observed[filled], observed)
    assert_allclose(bins.predicted[filled], predicted)


def test_error_is_near_zero_when_calibrated_and_large_when_not() -> None:
    calibrated, overconfident = _table(6, num_rows=20000), _table(6, temperature=0.4, num_rows=20000)
    assert classwise_calibration_error(*calibrated) < 0.01
    assert classwise_calibration_error(*overconfident) > 0.04


def test_certain_predictions_fall_into_the_last_bin() -> None:
    bins = reliability_bins(np.array([True, True]), np.array([1.0, 0.95]), num_bins=10)
    assert bins.counts.tolist() == [0] * 9 + [2]


@pytest.fixture
def evaluated() -> EvaluatedTable:
    """Six studies of the canal and the left foramen: answers are right by 0.8."""
    labels = draw_labels(6, num_graded=10)
    answers = np.where(np.eye(3)[labels] > 0, 0.8, 0.1)
    return EvaluatedTable(labels, answers, answers)


def test_the_plain_mean_of_the_members_is_read_for_the_evaluated_studies(tmp_path: Path) -> None:
    """By hand: the geometric means of 0.8, 0.1, 0.1 and 0.2, 0.4, 0.4 are as 0.4 to 0.2 to 0.2."""
    ids = make_study_ids(3)
    for name, row, count in (("a", (0.8, 0.1, 0.1), 3), ("b", (0.2, 0.4, 0.4), 2)):
        write_out_of_fold_table(
            tmp_path / f"{name}.csv", ids[:count], np.tile(np.array(row), (count, 25, 1)), model=name
        )
    mean = read_uncalibrated(find_tables(str(tmp_path / "*.csv")), ids[1:])
    assert mean[0, 0] == pytest.approx([0.5, 0.25, 0.25])
    assert mean[1, 24] == pytest.approx([0.8, 0.1, 0.1])


def test_calibration_is_compared_on_common_rows(evaluated: EvaluatedTable) -> None:
    before = np.full((6, 25, 3), 1 / 3)
    before[0, :5] = np.nan
    canal, left = calibration_changes(evaluated, before)
    assert (canal.condition, canal.num_rows) == (Condition.SPINAL_CANAL_STENOSIS, 25)
    assert (left.condition, left.num_rows) == (Condition.LEFT_NEURAL_FORAMINAL_NARROWING, 30)
    # By hand: (1 - 1/3)^2 + 2 (1/3)^2 and (1 - 0.8)^2 + 2 (0.1)^2.
    assert canal.brier_before == pytest.approx(2 / 3) and canal.brier == pytest.approx(0.06)
    # One bin holds every row of a class: the error is |1/3 - its share|, meaned over classes.
    labels = evaluated.labels[1:, :5]
    gaps = [abs(1 / 3 - float((labels == grade).mean())) for grade in range(3)]
    assert canal.error_before == pytest.approx(np.mean(gaps))
    gaps = [0.2 * (labels == grade).mean() + 0.1 * (labels != grade).mean() for grade in range(3)]
    assert canal.error == pytest.approx(np.mean(gaps))


def test_rows_belong_together(evaluated: EvaluatedTable) -> None:
    before = evaluated.answers * 0.5
    labels, answers, earlier = common_rows(evaluated, before, CONDITIONS["spinal_canal_stenosis"])
    np.testing.assert_array_equal(earlier, answers * 0.5)
    np.testing.assert_array_equal(answers.argmax(axis=-1), labels)


def test_a_pattern_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must match a file"):
        find_tables(str(tmp_path / "*.csv"))
