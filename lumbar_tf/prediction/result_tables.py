"""Tables of a prediction run: findings, members, intervals, sets, series, rejects, unanswered studies.

Every file is written atomically, and holds one row for each finding, series, reject or study.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.files import write_json_atomically, write_table_atomically
from lumbar_tf.labels import FINDINGS, Severity, row_id
from lumbar_tf.prediction.impression_phrases import Language
from lumbar_tf.prediction.results import StudyFindings, result_to_json
from lumbar_tf.serving.transport import ServingFailure
from lumbar_tf.tables.set_tables import SETS_NAME, write_set_table

SUBMISSION_NAME = "submission.csv"
PROBABILITY_NAME = "probability.csv"
JSON_NAME = "results.json"
MEMBERS_NAME = "members.csv"
INTERVALS_NAME = "intervals.csv"
SERIES_NAME = "series.csv"
REJECTS_NAME = "rejects.csv"
UNANSWERED_NAME = "unanswered.csv"
#: All files of a run, for their removal before the next one.
TABLE_NAMES = (
    SUBMISSION_NAME,
    PROBABILITY_NAME,
    INTERVALS_NAME,
    SETS_NAME,
    MEMBERS_NAME,
    JSON_NAME,
    SERIES_NAME,
    REJECTS_NAME,
    UNANSWERED_NAME,
)

_COLUMNS = [severity.column for severity in Severity]


@dataclass(frozen=True)
class UnansweredStudy:
    """A study for which a model server returned no prediction.

    Attributes:
        study_id: the study.
        failure: the reason.
        attempts: number of requests that were sent.
        message: the server's address and its error.
    """

    study_id: str
    failure: ServingFailure
    attempts: int
    message: str


def write_submission(path: Path, results: Sequence[StudyFindings], *, head: str = "competition") -> None:
    """Writes the competition's table, 25 rows per study.

    Args:
        path: the CSV file.
        results: the studies.
        head: `competition` or `probability`, the predictions to write.
    """
    write_table_atomically(
        path,
        ["row_id", *_COLUMNS],
        (
            [row_id(result.study_id, finding), *(f"{value:.9g}" for value in values)]
            for result in results
            for finding, values in zip(FINDINGS, getattr(result, head), strict=True)
        ),
    )


def write_members(path: Path, results: Sequence[StudyFindings], names: Sequence[str]) -> None:
    """Writes the predictions of each member in the layout of an out-of-fold table.

    Args:
        path: the CSV file: a submission's columns and `model`.
        results: the studies.
        names: the members' names, in their order.
    """
    write_table_atomically(
        path,
        ["row_id", *_COLUMNS, "model"],
        (
            [row_id(result.study_id, finding), *map(_text, values), name]
            for place, name in enumerate(names)
            for result in results
            for finding, values in zip(FINDINGS, result.members[place], strict=True)
            if np.isfinite(values).all()
        ),
    )


def write_intervals(path: Path, results: Sequence[StudyFindings]) -> None:
    """Writes the calibrated probabilities with their intervals, 25 rows per study.

    Args:
        path: the CSV file: `row_id`, and for each grade such as `severe` the columns `severe`, `severe_low`
            and `severe_high`; bounds are blank where there are none.
        results: the studies.
    """
    header = ["row_id", *(f"{name}{ending}" for name in _COLUMNS for ending in ("", "_low", "_high"))]
    rows: list[list[str]] = []
    for result in results:
        absent = np.full((len(FINDINGS), len(Severity), 2), np.nan)
        bounds = absent if result.interval is None else result.interval
        values = np.concatenate([result.probability[..., np.newaxis], bounds], axis=-1)
        for finding, cells in zip(FINDINGS, values.reshape(len(FINDINGS), -1), strict=True):
            rows.append([row_id(result.study_id, finding), *map(_text, cells)])
    write_table_atomically(path, header, rows)


def write_prediction_sets(path: Path, results: Sequence[StudyFindings]) -> None:
    """Writes the prediction sets, which `evaluate` reads; see `set_tables.write_set_table`.

    Args:
        path: the CSV file; without a row if the bundle has no sets.
        results: the studies, all of one model.
    """
    nothing = np.zeros((len(FINDINGS), len(Severity)), np.bool_)
    sets = [nothing if result.prediction_set is None else result.prediction_set for result in results]
    coverage = next((result.set_coverage for result in results if result.set_coverage is not None), np.nan)
    study_ids = [result.study_id for result in results]
    write_set_table(path, study_ids, np.array(sets, np.bool_), coverage=coverage)


def write_results_json(
    path: Path, results: Sequence[StudyFindings], *, model: str, language: Language = Language.ENGLISH
) -> None:
    """Writes all studies as one JSON file, with impressions in a language."""
    content = {"model": model, "studies": [result_to_json(result, language) for result in results]}
    write_json_atomically(path, content, allow_nan=False)


def write_series(path: Path, series: Iterable[tuple[str, SeriesSummary]]) -> None:
    """Writes one row for each readable series, used or not; of several contrasts, one row for each.

    Args:
        path: the CSV file.
        series: study id and series.
    """
    header = ["study_id", "series_id", "plane", "reason", "num_slices", "contrast"]
    rows = (
        [
            study_id,
            item.series_id,
            item.plane.value if item.plane else "",
            item.reason,
            item.num_slices,
            item.contrast,
        ]
        for study_id, item in series
    )
    write_table_atomically(path, header, rows)


def write_rejects(path: Path, rejects: Iterable[Reject]) -> None:
    """Writes one row for each file or study that was left out or noted."""
    header = ["study_id", "series_id", "file_name", "reason", "kind", "message"]
    rows = (
        [
            reject.study_id,
            reject.series_id,
            reject.file_name,
            reject.reason.value,
            reject.reason.kind.value,
            reject.message,
        ]
        for reject in rejects
    )
    write_table_atomically(path, header, rows)


def write_unanswered(path: Path, unanswered: Iterable[UnansweredStudy]) -> None:
    """Writes one row for each study without a prediction."""
    header = ["study_id", "failure", "attempts", "message"]
    rows = ([study.study_id, study.failure.value, study.attempts, study.message] for study in unanswered)
    write_table_atomically(path, header, rows)


def _text(value: float) -> str:
    """Returns nine significant digits, which restore every float32; "" for NaN."""
    return f"{value:.9g}" if np.isfinite(value) else ""
