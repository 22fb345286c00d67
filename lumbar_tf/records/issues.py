"""Issues of records: the codes that `verify` reports."""

from dataclasses import dataclass
from enum import Enum


class IssueCode(Enum):
    """The kinds of issues. The value is the stable code that `verify` prints."""

    # The manifest.
    MANIFEST_ABSENT = "manifest_absent"
    MANIFEST_DAMAGED = "manifest_damaged"
    MANIFEST_SCHEMA = "manifest_schema"
    MANIFEST_CONTRADICTION = "manifest_contradiction"
    # Shards.
    SHARD_MISSING = "shard_missing"
    SHARD_EMPTY = "shard_empty"
    FILE_UNREADABLE = "file_unreadable"
    SHARD_CHANGED = "shard_changed"
    SHARD_SWAPPED = "shard_swapped"
    SHARD_LINK = "shard_link"
    SHARD_FOREIGN = "shard_foreign"
    # Records within a shard.
    LENGTH_DAMAGED = "length_damaged"
    LENGTH_ABSURD = "length_absurd"
    DATA_DAMAGED = "data_damaged"
    CUT_IN_RECORD = "cut_in_record"
    NOT_AN_EXAMPLE = "not_an_example"
    BAD_FEATURE = "bad_feature"
    RECORD_SCHEMA = "record_schema"
    RECORD_PLANE = "record_plane"
    RECORD_MISSING = "record_missing"
    RECORD_FOREIGN = "record_foreign"
    RECORD_TWICE = "record_twice"
    RECORD_ORDER = "record_order"
    STUDY_IN_TWO_SHARDS = "study_in_two_shards"
    SLICE_COUNT = "slice_count"
    PLANES_DISAGREE = "planes_disagree"
    # Other files.
    LEFTOVER_FILE = "leftover_file"
    FOREIGN_FILE = "foreign_file"
    # Folds.
    FOLDS_ABSENT = "folds_absent"
    FOLDS_DAMAGED = "folds_damaged"
    FOLD_MISSING = "fold_missing"
    FOLD_FOREIGN = "fold_foreign"
    FOLD_OUT_OF_RANGE = "fold_out_of_range"
    FOLD_EMPTY = "fold_empty"
    FOLD_SPLITS_PATIENT = "fold_splits_patient"
    # Labels.
    LABELS_ABSENT = "labels_absent"
    LABELS_DAMAGED = "labels_damaged"
    LABELS_FOREIGN = "labels_foreign"
    LABELS_DIFFER = "labels_differ"
    # The source.
    SOURCE_CHANGED = "source_changed"
    SOURCE_MISSING = "source_missing"
    SOURCE_ADDED = "source_added"
    MANIFEST_DIFFERS = "manifest_differs"
    RECORD_DIFFERS = "record_differs"
    # Patients.
    IDENTIFYING_VALUE = "identifying_value"


@dataclass(frozen=True)
class RecordIssue:
    """An issue of a folder of records.

    Attributes:
        code: the stable code.
        file: path below the folder, with forward slashes.
        message: one line of text, without anything that could identify a patient.
        study_id: the study, "" if unknown or if several are concerned.
        record: index of the record in the file, from 0; None for the whole file.
    """

    code: IssueCode
    file: str
    message: str
    study_id: str = ""
    record: int | None = None

    def __str__(self) -> str:
        """Returns one line: file, place, code, message.

        >>> str(RecordIssue(IssueCode.DATA_DAMAGED, "axial_t2/part.tfrecord", "no fit", "10", 3))
        'axial_t2/part.tfrecord, record 3, study 10: data_damaged: no fit'
        """
        place = [self.file]
        if self.record is not None:
            place.append(f"record {self.record}")
        if self.study_id:
            place.append(f"study {self.study_id}")
        line = f"{', '.join(place)}: {self.code.value}: {self.message}"
        # Names and ids come from damaged files and could contain control characters of the terminal.
        return "".join(character if character.isprintable() else "?" for character in line)
