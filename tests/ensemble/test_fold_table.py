from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.ensemble.fold_table import deal_folds, read_fold_table, write_fold_table


def test_round_trip(tmp_path: Path) -> None:
    folds = {"10": 1, "9": 0, "x_1": 4}
    write_fold_table(tmp_path / "deep" / "folds.csv", folds)
    assert read_fold_table(tmp_path / "deep" / "folds.csv") == folds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study_id,fold\n1,0\n", "fold_id"),
        ("study_id,fold_id\n1,0\n1,0\n", "line 3"),
        ("study_id,fold_id\n1,first\n", "'first'"),
        ("study_id,fold_id\n1\n", "line 2"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_fold_table(path)


def test_dealt_folds_share_the_studies_and_the_severe_ones() -> None:
    labels = np.zeros((40, 25), int)
    labels[:10] = 2
    ids = [str(index) for index in range(40)]
    folds = deal_folds(ids, labels, num_folds=5, seed=3)
    assert np.bincount([folds[each] for each in ids]).tolist() == [8] * 5
    assert np.bincount([folds[each] for each in ids[:10]]).tolist() == [2] * 5
    assert deal_folds(ids, labels, num_folds=5, seed=3) == folds
