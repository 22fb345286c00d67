from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.labels import FINDINGS, NUM_FINDINGS
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from lumbar_tf.training.grader_task import read_noisy_labels

FOLDS = {"a": 0, "b": 1}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Records with the labels of two studies, and a run whose member gives every grade a third."""
    (tmp_path / "records").mkdir()
    header = ",".join(["study_id", *(finding.name for finding in FINDINGS)])
    rows = [",".join([name, *["Severe"] * NUM_FINDINGS]) for name in FOLDS]
    (tmp_path / "records" / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    probabilities = np.full((2, NUM_FINDINGS, 3), 1 / 3)
    probabilities[1, 6] = [0.95, 0.0, 0.05]
    write_out_of_fold_table(
        tmp_path / "before" / "sagittal_t2" / "net" / "oof.csv",
        list(FOLDS), probabilities, folds=[0, 1], model="sagittal_t2/net",
    )  # fmt: skip
    return tmp_path


def _read(place: Path, pattern: str, runs: str = "runs") -> dict[str, np.ndarray]:
    return read_noisy_labels(
        str(place / pattern), records=place / "records", runs=place / runs, folds=FOLDS, threshold=0.8
    )


def test_noisy_labels_are_those_of_the_records(place: Path) -> None:
    found = _read(place, "before/*/*/oof.csv")
    assert {name: np.flatnonzero(flags).tolist() for name, flags in found.items()} == {"b": [6]}


def test_tables_of_the_same_run_are_refused(place: Path) -> None:
    with pytest.raises(ValueError, match="of an earlier run"):
        _read(place, "before/*/*/oof.csv", runs="before")


def test_pattern_without_matches_is_refused(place: Path) -> None:
    with pytest.raises(ValueError, match="match a file"):
        _read(place, "elsewhere/*.csv")
