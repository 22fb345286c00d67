"""Dataset card of records: their contents, origin and digests, without anything about a single study."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.evaluation.evaluated_table import CONDITIONS
from lumbar_tf.files import file_sha256
from lumbar_tf.labels import Condition, Plane
from lumbar_tf.records.manifest import MANIFEST_NAME, Manifest, RejectEntry, read_manifest
from lumbar_tf.reports.census import Census, StudyFacts, Tally
from lumbar_tf.reports.inspection_page import census_values
from lumbar_tf.reports.pages import write_page
from lumbar_tf.tables.folds import FOLDS_NAME, read_fold_table
from lumbar_tf.tables.labels import LABELS_NAME, read_record_labels

CARD_NAME = "dataset_card.html"

#: Files of a folder of records whose digests identify the data set; the manifest has those of the shards.
_FILES = (MANIFEST_NAME, LABELS_NAME, FOLDS_NAME)
_REASONS = {reason.value: reason for reason in RejectReason}


@dataclass(frozen=True, eq=False)
class RecordsSummary:
    """Contents of a folder of records.

    Attributes:
        manifest: the manifest.
        census: counts of its studies, series, labels, and of what was left out.
        digests: SHA-256 of each of the folder's files by name.
        fold_sizes: number of studies by fold; empty without a table of folds.
    """

    manifest: Manifest
    census: Census
    digests: dict[str, str]
    fold_sizes: dict[int, int]

    @property
    def num_patients(self) -> int:
        """Number of patients."""
        return len(set(self.manifest.patient_groups.values()))

    @cached_property
    def num_left_out(self) -> int:
        """Number of studies that were left out completely."""
        named = {reject.study_id for reject in self.manifest.rejects}
        return len(named - set(self.manifest.patient_groups) - {""})

    @cached_property
    def label_counts(self) -> dict[Condition, list[int]]:
        """Numbers of labels Normal/Mild, Moderate, Severe and missing by condition; empty without labels."""
        if self.census.labels is None:
            return {}
        totals = {name: self.census.labels[rows].sum(axis=0) for name, rows in CONDITIONS.items()}
        return {Condition(name): counts.tolist() for name, counts in totals.items()}

    @property
    def num_missing_labels(self) -> int:
        """Number of missing labels of graded studies."""
        return sum(counts[-1] for counts in self.label_counts.values())

    @property
    def num_without(self) -> dict[Plane, int]:
        """Number of studies without each plane."""
        return {count.plane: self.census.num_studies - count.num_studies for count in self.census.planes}


def summarise_records(path: Path) -> RecordsSummary:
    """Reads the manifest of records, and the tables beside it if they are there.

    Args:
        path: the folder of the records, or its `manifest.json`.

    Raises:
        ValueError: the manifest is absent or damaged, or a table is malformed.
    """
    manifest, folder = read_manifest(path), path if path.is_dir() else path.parent
    labels = read_record_labels(folder) if (folder / LABELS_NAME).is_file() else {}
    folds = read_fold_table(folder / FOLDS_NAME) if (folder / FOLDS_NAME).is_file() else {}
    tally = Tally()
    tally.add_rejects(_to_reject(entry) for entry in manifest.rejects)
    for study in manifest.studies:
        tally.add(StudyFacts(study.study_id, study.series, labels=labels.get(study.study_id)))
    return RecordsSummary(
        manifest=manifest,
        census=tally.census(),
        digests={name: file_sha256(folder / name) for name in _FILES if (folder / name).is_file()},
        fold_sizes=dict(sorted(Counter(folds.values()).items())),
    )


def _to_reject(entry: RejectEntry) -> Reject:
    reason = _REASONS.get(entry.reason)
    if reason is None:
        raise ValueError(
            f"{MANIFEST_NAME} must contain reason codes of this version. Received: {entry.reason!r}; the "
            "records may be of a later version."
        )
    return Reject(entry.study_id, entry.series_id, entry.file_name, reason, entry.message)


def write_dataset_card(path: Path, records: RecordsSummary) -> None:
    """Writes the card, atomically. It contains counts, versions and digests, but no id of a study."""
    census = records.census
    values: dict[str, Any] = {
        "records": records,
        "census": census,
        "figures": [
            ("studies", census.num_studies),
            ("patients", records.num_patients),
            ("series kept", sum(plane.num_series for plane in census.planes)),
            ("slices", sum(plane.num_slices for plane in census.planes)),
            ("graded studies", census.num_graded),
            ("studies left out", records.num_left_out),
        ],
        **census_values(census),
    }
    write_page(path, "dataset_card.html", values, is_synthetic=records.manifest.is_synthetic)
