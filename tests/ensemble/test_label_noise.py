from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar_tf.ensemble.label_noise import noisy_labels, rank_suspect_labels
from lumbar_tf.labels import NUM_FINDINGS, Severity
from lumbar_tf.tables.out_of_fold import OutOfFoldTable, read_out_of_fold_tables, write_out_of_fold_table

#: Row 0 is the canal at L1/L2, row 1 at L2/L3, row 24 the right subarticular zone at L5/S1.
_LAST = NUM_FINDINGS - 1


def _table(model: str, rows: dict[str, dict[int, list[float]]], folds: dict[str, int]) -> OutOfFoldTable:
    """A table with the rows given and NaN elsewhere."""
    full = {}
    for study_id, answers in rows.items():
        full[study_id] = np.full((NUM_FINDINGS, 3), np.nan)
        for row, values in answers.items():
            full[study_id][row] = values
    return OutOfFoldTable(model, full, folds)


def _labels(**given: dict[int, int]) -> dict[str, np.ndarray]:
    labels = {study_id: np.full(NUM_FINDINGS, -1, np.int8) for study_id in given}
    for study_id, values in given.items():
        for row, grade in values.items():
            labels[study_id][row] = grade
    return labels


FOLDS = {"a": 0, "b": 1, "c": 2}


def test_a_label_is_noisy_where_the_mean_of_available_members_disagrees() -> None:
    first = _table("m", {"a": {0: [0.1, 0.3, 0.6], 1: [0.1, 0.9, 0.0]}, "b": {0: [0.9, 0.1, 0.0]}}, FOLDS)
    second = _table("n", {"a": {0: [0.3, 0.1, 0.6], _LAST: [0.0, 0.15, 0.85]}}, FOLDS)
    labels = _labels(a={0: 0, 1: 0, _LAST: 1, 5: 2}, b={0: 0}, c={0: 2})
    # a, row 0: mean p(given) = (0.1 + 0.3) / 2 = 0.2, disagreement 0.8: noisy, for 0.8 counts;
    # row 1: 0.9 by one member alone; the last: 0.85; row 5: nobody answers; b: 0.1; c: in no table.
    found = noisy_labels([first, second], labels, 0.8, FOLDS)
    assert set(found) == {"a"}
    assert np.flatnonzero(found["a"]).tolist() == [0, 1, _LAST]
    assert np.flatnonzero(noisy_labels([first, second], labels, 0.81, FOLDS)["a"]).tolist() == [1, _LAST]
    assert np.flatnonzero(noisy_labels([first, second], labels, 0.9, FOLDS)["a"]).tolist() == [1]
    assert noisy_labels([first, second], labels, 0.95, FOLDS) == {}


def test_a_missing_label_is_never_noisy() -> None:
    table = _table("m", {"a": {0: [0.0, 0.0, 1.0]}}, FOLDS)
    assert noisy_labels([table], _labels(a={}), 0.1, FOLDS) == {}


@pytest.mark.parametrize(
    ("folds", "received"),
    [({"a": 1}, "fold 1"), ({}, "fold None")],
    ids=["another fold", "no fold column"],
)
def test_a_table_that_may_have_trained_on_the_study_is_refused(folds: dict[str, int], received: str) -> None:
    table = _table("m", {"a": {0: [0.9, 0.1, 0.0]}}, folds)
    with pytest.raises(ValueError, match=f"{received} for study 'a' of model 'm', and 0 in the folds file"):
        noisy_labels([table], _labels(a={0: 0}), 0.8, FOLDS)


def test_every_table_must_be_out_of_fold(tmp_path: Path) -> None:
    """The way from disk: a foreign submission has no fold column."""
    probabilities = np.full((1, NUM_FINDINGS, 3), [0.9, 0.1, 0.0])
    write_out_of_fold_table(tmp_path / "ours.csv", ["a"], probabilities, folds=[0], model="sagittal_t2/net")
    write_out_of_fold_table(tmp_path / "foreign.csv", ["a"], probabilities)
    tables = read_out_of_fold_tables([tmp_path / "ours.csv", tmp_path / "foreign.csv"])
    with pytest.raises(ValueError, match="foreign"):
        noisy_labels(tables, _labels(a={0: 2}), 0.8, FOLDS)
    assert noisy_labels(tables[1:], _labels(a={0: 2}), 0.8, FOLDS)["a"].sum() == 1


def test_studies_outside_the_coming_training_are_ignored() -> None:
    table = _table("m", {"z": {0: [0.0, 0.0, 1.0]}}, {"z": 4})
    assert noisy_labels([table], _labels(z={0: 0}), 0.5, FOLDS) == {}


@pytest.mark.parametrize("threshold", [0.0, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    table = _table("m", {"a": {0: [0.9, 0.1, 0.0]}}, FOLDS)
    with pytest.raises(ValueError, match="threshold"):
        noisy_labels([table], _labels(a={0: 0}), threshold, FOLDS)


def test_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="Received: none"):
        noisy_labels([], _labels(a={0: 0}), 0.8, FOLDS)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(0.05, 1.0))
def test_noise_is_what_a_loop_over_rows_finds(seed: int, threshold: float) -> None:
    generator = np.random.default_rng(seed)
    labels = {study_id: generator.integers(-1, 3, NUM_FINDINGS) for study_id in FOLDS}
    tables = []
    for model in ("m", "n"):
        rows = generator.dirichlet([0.4] * 3, (3, NUM_FINDINGS))
        rows[generator.random((3, NUM_FINDINGS)) < 0.3] = np.nan
        tables.append(OutOfFoldTable(model, dict(zip(FOLDS, rows, strict=True)), FOLDS))
    found = noisy_labels(tables, labels, threshold, FOLDS)
    for study_id in FOLDS:
        for row in range(NUM_FINDINGS):
            grade = labels[study_id][row]
            answers = [table.rows[study_id][row][grade] for table in tables]
            answers = [answer for answer in answers if not np.isnan(answer)]
            expected = grade >= 0 and bool(answers) and 1 - sum(answers) / len(answers) >= threshold
            assert bool(found.get(study_id, np.zeros(NUM_FINDINGS))[row]) == expected


def test_suspects_are_ordered_and_have_the_members_probabilities() -> None:
    first = _table("m", {"a": {0: [0.05, 0.15, 0.8], 1: [0.5, 0.4, 0.1]}, "b": {3: [0.7, 0.2, 0.1]}}, FOLDS)
    second = _table("n", {"a": {0: [0.15, 0.65, 0.2]}, "other cohort": {0: [0.0, 0.0, 1.0]}}, FOLDS)
    labels = np.stack(list(_labels(a={0: 0, 1: 0}, b={3: 2, 4: 1}).values()))
    suspects = rank_suspect_labels([first, second], ["a", "b"], labels, most=10)
    # p(given): a, row 0: 0.05 and 0.15; b, row 3: 0.1; a, row 1: 0.5; b, row 4: nobody answers.
    assert [(suspect.rank, suspect.row_id) for suspect in suspects] == [
        (1, "a_spinal_canal_stenosis_l1_l2"),
        (2, "b_spinal_canal_stenosis_l4_l5"),
        (3, "a_spinal_canal_stenosis_l2_l3"),
    ]
    assert [suspect.disagreement for suspect in suspects] == pytest.approx([0.9, 0.9, 0.5])
    # Of the others the mean prefers severe: 0.5 against moderate's 0.4.
    assert (suspects[0].label, suspects[0].other) == (Severity.NORMAL_MILD, Severity.SEVERE)
    assert suspects[0].other_mean == pytest.approx(0.5)
    assert suspects[0].by_member == {"m": (0.05, 0.8), "n": (0.15, 0.2)}
    assert suspects[1].by_member == {"m": (0.1, 0.7)}
    assert [suspect.rank for suspect in rank_suspect_labels([first, second], ["a", "b"], labels, most=2)] == [
        1,
        2,
    ]
