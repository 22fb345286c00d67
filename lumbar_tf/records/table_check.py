"""Verification of the tables beside records: folds and labels."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS
from lumbar_tf.records.issues import IssueCode, RecordIssue
from lumbar_tf.records.manifest import Manifest
from lumbar_tf.records.shard_check import RecordSummary
from lumbar_tf.records.verification import Verification
from lumbar_tf.tables.folds import FOLDS_NAME, read_fold_table
from lumbar_tf.tables.labels import LABELS_NAME, read_record_labels

#: Errors of reading a damaged table. The readers' messages contain the folder's path, which is not shown.
_TABLE_ERRORS = (ValueError, OSError, TypeError, AttributeError)


def check_tables(folder: Path, verification: Verification) -> list[RecordIssue]:
    """Checks `folds.csv` against the manifest and `labels.csv` against the records."""
    return [
        *check_folds(folder, verification.manifest),
        *check_labels(folder, verification.manifest, verification.records),
    ]


def check_folds(folder: Path, manifest: Manifest | None) -> list[RecordIssue]:
    """Checks that each study has one fold, that each patient is in one fold, and that no fold is empty.

    Args:
        folder: the records.
        manifest: their manifest; None checks only that the table can be read.
    """
    path = folder / FOLDS_NAME
    if not path.is_file():
        return [_fold_fault(IssueCode.FOLDS_ABSENT, "it is absent: the build did not finish")]
    try:
        folds = read_fold_table(path)
    except _TABLE_ERRORS:
        rule = "the table must give study_id,fold_id, each study once, with a fold 0, 1, ..."
        return [_fold_fault(IssueCode.FOLDS_DAMAGED, rule)]
    return list(_compare_folds(folds, manifest)) if manifest else []


def _fold_fault(code: IssueCode, message: str, study_id: str = "") -> RecordIssue:
    return RecordIssue(code, FOLDS_NAME, message, study_id)


def _compare_folds(folds: dict[str, int], manifest: Manifest) -> Iterator[RecordIssue]:
    groups = manifest.patient_groups
    num_folds = manifest.options.num_folds
    for study_id in sorted(groups.keys() - folds.keys()):
        yield _fold_fault(IssueCode.FOLD_MISSING, "the study has no fold", study_id)
    for study_id in sorted(folds.keys() - groups.keys()):
        yield _fold_fault(IssueCode.FOLD_FOREIGN, "the manifest does not contain this study", study_id)
    for study_id, fold in sorted(folds.items()):
        if fold >= num_folds:
            yield _fold_fault(
                IssueCode.FOLD_OUT_OF_RANGE, f"fold must be below {num_folds}, but is {fold}", study_id
            )
    sizes = Counter(fold for study_id, fold in folds.items() if study_id in groups)
    for fold in range(num_folds):
        if not sizes[fold]:
            yield _fold_fault(IssueCode.FOLD_EMPTY, f"no study is in fold {fold} of {num_folds}")
    members: dict[str, dict[int, str]] = defaultdict(dict)
    for study_id, group in sorted(groups.items()):
        if study_id in folds:
            members[group].setdefault(folds[study_id], study_id)
    for places in members.values():
        (first_fold, first), *others = places.items()
        for fold, study_id in others:
            message = f"study {first} of the same patient is in fold {first_fold}, this one in fold {fold}"
            yield _fold_fault(IssueCode.FOLD_SPLITS_PATIENT, message, study_id)


def check_labels(
    folder: Path, manifest: Manifest | None, records: Sequence[RecordSummary]
) -> list[RecordIssue]:
    """Checks that the label table contains the labels of the records.

    Args:
        folder: the records.
        manifest: their manifest; None checks only that the table can be read.
        records: the valid records.
    """
    if not (folder / LABELS_NAME).is_file():
        return [_label_fault(IssueCode.LABELS_ABSENT, "it is absent: the build did not finish")]
    try:
        table = {study: tuple(row.tolist()) for study, row in read_record_labels(folder).items()}
    except _TABLE_ERRORS:
        rule = "the table must give study_id and <condition>_<level>, each study once, with known severities"
        return [_label_fault(IssueCode.LABELS_DAMAGED, rule)]
    return list(_compare_labels(table, manifest, records)) if manifest else []


def _label_fault(code: IssueCode, message: str, study_id: str = "") -> RecordIssue:
    return RecordIssue(code, LABELS_NAME, message, study_id)


def _compare_labels(
    table: Mapping[str, tuple[int, ...]], manifest: Manifest, records: Sequence[RecordSummary]
) -> Iterator[RecordIssue]:
    for study_id in sorted(table.keys() - manifest.patient_groups.keys()):
        yield _label_fault(IssueCode.LABELS_FOREIGN, "the manifest does not contain this study", study_id)
    without_labels = (MISSING_LABEL,) * NUM_FINDINGS
    held = {record.study_id: record.labels for record in records}
    for study_id, labels in sorted(held.items()):
        differing = sum(
            ours != theirs for ours, theirs in zip(table.get(study_id, without_labels), labels, strict=False)
        )
        if differing:
            message = f"{differing} labels differ from those of its records"
            yield _label_fault(IssueCode.LABELS_DIFFER, message, study_id)
