"""What was decided of the input, as tables: which series was taken for which plane, what was left out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.files import write_table_atomically
from lumbar_tf.serving.errors import ServingFailure


@dataclass(frozen=True)
class UnansweredStudy:
    """A study that a model server did not answer.

    Attributes:
        study_id: the study.
        failure: why.
        attempts: how often it was asked.
        message: what the server said, and where it is.
    """

    study_id: str
    failure: ServingFailure
    attempts: int
    message: str


def write_series(path: Path, series: Iterable[tuple[str, SeriesSummary]]) -> None:
    """Writes one row for each readable series, taken or not, atomically.

    Args:
        path: the CSV.
        series: study id and series.
    """
    header = ["study_id", "series_id", "plane", "reason", "num_slices"]
    rows = [
        [study_id, each.series_id, each.plane.value if each.plane else "", each.reason, each.num_slices]
        for study_id, each in series
    ]
    write_table_atomically(path, header, rows)


def write_rejects(path: Path, rejects: Iterable[Reject]) -> None:
    """Writes one row for each thing that was left out or noted, atomically."""
    header = ["study_id", "series_id", "file_name", "reason", "kind", "message"]
    rows = [
        [
            each.study_id,
            each.series_id,
            each.file_name,
            each.reason.value,
            each.reason.kind.value,
            each.message,
        ]
        for each in rejects
    ]
    write_table_atomically(path, header, rows)


def write_unanswered(path: Path, unanswered: Iterable[UnansweredStudy]) -> None:
    """Writes one row for each study without an answer, atomically."""
    header = ["study_id", "failure", "attempts", "message"]
    rows = [[each.study_id, each.failure.value, each.attempts, each.message] for each in unanswered]
    write_table_atomically(path, header, rows)
