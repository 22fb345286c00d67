"""Some of the members make an ensemble of their own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumbar_tf.bundle import trained_ensemble
from lumbar_tf.tables.out_of_fold import OutOfFoldTable, write_out_of_fold_table
from tests.graded_cohort import write_labels

MEMBERS = ("axial_t2/one", "sagittal_t2/one", "sagittal_t2/two")
STUDIES = ("11", "12")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs of three members with labels beside them, and a stacker's folds."""
    for place, name in enumerate(MEMBERS):
        values = np.full((2, 25, 3), [0.5, 0.3, 0.2]) + 0.01 * place * np.array([1, -1, 0])
        write_out_of_fold_table(tmp_path / name / "oof.csv", STUDIES, values, folds=(0, 1), model=name)
    write_labels(tmp_path / "train.csv", STUDIES, np.zeros((2, 25), int))
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack" / "folds.csv").write_text("study_id,fold_id\n11,0\n12,1\n", encoding="utf-8")
    return tmp_path


def test_the_stacker_is_fitted_to_the_chosen_members_alone(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def stack(
        tables: Sequence[OutOfFoldTable],
        ids: Sequence[str],
        labels: Any,
        *,
        folds: Mapping[str, int] | None,
        coverage: float,
    ) -> str:
        given.update(models=[table.model for table in tables], ids=ids, labels=labels, folds=folds)
        return "fitted"

    monkeypatch.setattr(trained_ensemble, "stack_tables", stack)
    wanted = ("sagittal_t2/two", "axial_t2/one")
    assert trained_ensemble.stack_subset(runs, wanted, [runs / "train.csv"], runs / "stack") == "fitted"
    assert set(given["models"]) == set(wanted)
    assert list(given["ids"]) == list(STUDIES) and np.shape(given["labels"]) == (2, 25)
    assert given["folds"] == {"11": 0, "12": 1}


@pytest.mark.parametrize("wanted", [("axial_t2/one", "axial_t2/other"), ("axial_t2/one", "axial_t2/one")])
def test_a_member_that_is_not_there_or_twice_there_is_refused(runs: Path, wanted: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=wanted[-1]):
        trained_ensemble.stack_subset(runs, wanted, [runs / "train.csv"], runs / "stack")
