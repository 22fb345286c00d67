"""Folds of cross-validation, by patient and balanced by severity."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lumbar_tf.files import write_table_atomically
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Family, Severity
from lumbar_tf.tables.text_table import read_text_table

FOLDS_NAME = "folds.csv"
_COLUMNS = ["study_id", "fold_id"]
_PATIENT_COLUMNS = ["study_id", "patient_id"]
#: Columns that hold the fold: ours, and that of many published tables.
_FOLD_COLUMNS = ("fold_id", "fold")


def make_folds(
    study_ids: Sequence[str],
    patient_groups: Sequence[str],
    labels: ArrayLike,
    *,
    num_folds: int,
    seed: int,
    kept: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Assigns patients to folds.

    Patients are assigned in order of the number of rare severities, the most first, each to the fold that
    stays nearest to its share of studies and of moderate and severe findings of each family.

    Args:
        study_ids: n distinct studies.
        patient_groups: n; studies with equal values stay together.
        labels: severities [n, 25], -1 for missing.
        num_folds: at least 2, at most the number of patients.
        seed: shuffles patients of about equal weight.
        kept: existing folds of some studies. These studies and the other studies of their patients keep
            them, and the remaining patients are assigned around them.

    Returns:
        Fold 0 to num_folds - 1 by study id, independent of the order of the input.

    Raises:
        ValueError: the lengths differ, an id is given twice, or there are too few patients.

    >>> make_folds(["a", "b"], ["a", "b"], [[0] * 25] * 2, num_folds=2, seed=0) in (
    ...     {"a": 0, "b": 1}, {"a": 1, "b": 0})
    True
    """
    labels = np.asarray(labels)
    groups = sorted(set(patient_groups))
    if labels.shape != (len(study_ids), NUM_FINDINGS) or len(patient_groups) != len(study_ids):
        raise ValueError(
            f"Studies, groups and labels must agree in length. Received: {len(study_ids)} studies, "
            f"{len(patient_groups)} groups, labels {labels.shape}."
        )
    if len(set(study_ids)) != len(study_ids):
        raise ValueError("`study_ids` must be distinct. Received: duplicates.")
    if not 2 <= num_folds <= len(groups):
        raise ValueError(f"`num_folds` must be in [2, {len(groups)} patients]. Received: {num_folds}.")
    index_of_group = {group: index for index, group in enumerate(groups)}
    traits = np.zeros((len(groups), _study_traits(labels).shape[1]))
    np.add.at(traits, [index_of_group[group] for group in patient_groups], _study_traits(labels))
    fixed = np.full(len(groups), -1)
    for study, group in zip(study_ids, patient_groups, strict=True):
        if study in (kept or {}):
            fixed[index_of_group[group]] = (kept or {})[study]
    fold_of_group = _assign_folds(traits, num_folds, seed, fixed)
    return {
        study: int(fold_of_group[index_of_group[group]])
        for study, group in zip(study_ids, patient_groups, strict=True)
    }


def _study_traits(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Returns [n, 7]: 1, then the number of moderate and of severe findings of each family."""
    columns = [np.ones(len(labels))]
    for family in Family:
        mine = [index for index, finding in enumerate(FINDINGS) if finding.condition.family is family]
        for severity in (Severity.MODERATE, Severity.SEVERE):
            columns.append((labels[:, mine] == severity).sum(axis=1))
    return np.stack(columns, axis=1).astype(np.float64)


def _assign_folds(
    traits: NDArray[np.float64], num_folds: int, seed: int, fixed: NDArray[np.int64]
) -> NDArray[np.int64]:
    # Shares of the total, so that ten severe canals weigh as much as a thousand moderate foramina.
    shares = traits / np.maximum(traits.sum(axis=0), 1)
    shuffled = np.random.default_rng(seed).permutation(len(shares))
    # Every patient has a study, so no weight is 0. Rounded to powers of two; the seed orders equal weights.
    weights = np.rint(np.log2(shares.sum(axis=1)))
    order = shuffled[np.argsort(-weights[shuffled], kind="stable")]
    held = np.zeros((num_folds, shares.shape[1]))
    folds = fixed.copy()
    np.add.at(held, fixed[fixed >= 0], shares[fixed >= 0])
    for index in order[fixed[order] < 0]:
        # Growth of sum(held^2), which is smallest where the folds stay even; ties go to the smallest fold.
        growth = (2 * held + shares[index]) @ shares[index]
        folds[index] = np.lexsort((held[:, 0], np.round(growth, 12)))[0]
        held[folds[index]] += shares[index]
    return folds


def write_folds(path: Path, folds: Mapping[str, int]) -> None:
    """Writes study_id,fold_id, sorted by study."""
    write_table_atomically(path, _COLUMNS, sorted(folds.items()))


def read_fold_table(path: Path) -> dict[str, int]:
    """Reads study_id,fold_id or study_id,fold; other columns are ignored.

    Raises:
        ValueError: a column is absent, a row has a wrong number of cells, a study is given twice, or a fold
            is not a whole number.
    """
    folds: dict[str, int] = {}
    table = read_text_table(path, _COLUMNS[:1]).require_sound()
    column = next((name for name in _FOLD_COLUMNS if name in table.columns), None)
    if column is None:
        raise ValueError(
            f"{path.name} must have a column {' or '.join(_FOLD_COLUMNS)}. Received: {table.columns}."
        )
    for line, (study_id, text) in table.rows([_COLUMNS[0], column]):
        if study_id in folds or not text.isdecimal():
            rule = "a study must be given once, with a fold 0, 1, ..."
            raise table.issue(line, rule, f"{study_id!r}, {text!r}").to_error()
        folds[study_id] = int(text)
    return folds


def read_patients(path: Path, study_ids: Sequence[str]) -> list[str]:
    """Reads study_id,patient_id; other columns and other studies are ignored.

    Args:
        path: the CSV.
        study_ids: the studies whose patients are returned, in their order.

    Raises:
        ValueError: a column is absent, a row has a wrong number of cells, a study is given twice, or a study
            or its patient is missing.
    """
    patients: dict[str, str] = {}
    table = read_text_table(path, _PATIENT_COLUMNS).require_sound()
    for line, (study_id, patient) in table.rows(_PATIENT_COLUMNS):
        if study_id in patients:
            raise table.issue(line, "a study must be given once", repr(study_id)).to_error()
        patients[study_id] = patient
    missing = [study_id for study_id in study_ids if not patients.get(study_id)]
    if missing:
        raise ValueError(
            f"{path.name} must give the patient of every study. Received: none for {len(missing)} studies, "
            f"e.g. {missing[0]!r}."
        )
    return [patients[study_id] for study_id in study_ids]


def read_folds(path: Path, patient_groups: Mapping[str, str]) -> dict[str, int]:
    """Reads folds and checks them against the records.

    Args:
        path: a CSV with study_id, fold_id; studies that are not in `patient_groups` are ignored.
        patient_groups: patient group by study id, from the manifest of the records.

    Returns:
        The fold of every study in `patient_groups`.

    Raises:
        ValueError: the table is invalid, a study has no fold, or a patient is in two folds.
    """
    return select_folds(read_fold_table(path), patient_groups, name=path.name)


def select_folds(table: Mapping[str, int], patient_groups: Mapping[str, str], *, name: str) -> dict[str, int]:
    """Returns the folds of some studies, and checks them.

    Args:
        table: fold by study; studies that are not in `patient_groups` are ignored.
        patient_groups: patient group by study.
        name: name of the table, for messages.

    Raises:
        ValueError: a study has no fold, or a patient is in two folds.
    """
    folds: dict[str, int] = {}
    fold_of_group: dict[str, tuple[int, str]] = {}
    for study_id, group in patient_groups.items():
        if study_id not in table:
            raise ValueError(
                f"{name} must give a fold (0, 1, ...) to every study of the records. "
                f"Received: none for {study_id}."
            )
        fold = folds[study_id] = table[study_id]
        first_fold, first_study = fold_of_group.setdefault(group, (fold, study_id))
        if fold != first_fold:
            raise ValueError(
                f"{name} must keep a patient in one fold. Received: study {first_study} in fold "
                f"{first_fold}, study {study_id} of the same patient in fold {fold}."
            )
    return folds


def sample_folds(
    folds: Mapping[str, int], patient_groups: Mapping[str, str], *, num_studies: int
) -> dict[str, int]:
    """Returns the folds of a random sample of patients, the same on every call.

    Every fold gives its share of the studies, so that the sample is as balanced as the folds are, and at
    least one patient. Patients stay whole: the sample may have a few more studies.

    Args:
        folds: fold by study.
        patient_groups: patient group by study.
        num_studies: size of the sample.

    Raises:
        ValueError: `num_studies` is less than the number of folds.
    """
    by_fold: dict[int, dict[str, list[str]]] = {}
    for study_id in sorted(folds):
        by_fold.setdefault(folds[study_id], {}).setdefault(patient_groups[study_id], []).append(study_id)
    if num_studies < len(by_fold):
        raise ValueError(
            f"`studies` must be at least {len(by_fold)}, one for each fold. Received: {num_studies}."
        )
    sample = {}
    for fold, patients in sorted(by_fold.items()):
        wanted = num_studies * sum(map(len, patients.values())) / len(folds)
        chosen: list[str] = []
        for group in np.random.default_rng(fold).permutation(sorted(patients)):
            if len(chosen) >= wanted - 0.5 and chosen:
                break
            chosen += patients[str(group)]
        sample.update(dict.fromkeys(chosen, fold))
    return sample
