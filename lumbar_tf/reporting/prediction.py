"""From DICOM to answers: reads studies, asks an exported ensemble, writes table, JSON and sheets."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.data.jobs import Cohort, open_cohort
from lumbar_tf.data.pseudonyms import pseudonymise_study
from lumbar_tf.data.study_records import refuse_faults
from lumbar_tf.ensemble.bundle import ServedEnsemble
from lumbar_tf.imaging.dicom import read_study
from lumbar_tf.imaging.reasons import Reject
from lumbar_tf.imaging.study import SeriesSummary, Study
from lumbar_tf.labels import Plane
from lumbar_tf.progress import ProgressMaker, silent_progress
from lumbar_tf.records.schema import encode_plane
from lumbar_tf.reporting.decisions import write_rejects, write_series
from lumbar_tf.reporting.results import StudyResult, write_json, write_members, write_submission
from lumbar_tf.reporting.sheet import draw_sheet

SUBMISSION_NAME = "submission.csv"
PROBABILITY_NAME = "probability.csv"
JSON_NAME = "results.json"
MEMBERS_NAME = "members.csv"
SERIES_NAME = "series.csv"
REJECTS_NAME = "rejects.csv"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What became of a source.

    Attributes:
        results: one a study; flagged as prior only where nothing could be read.
        rejects: files and studies that could not be used.
    """

    results: tuple[StudyResult, ...]
    rejects: tuple[Reject, ...]


def encode_study(study: Study) -> dict[Plane, bytes]:
    """Returns a study's serialized Examples, without labels."""
    return {plane: encode_plane(study.study_id, plane, slices) for plane, slices in study.planes.items()}


def grade_study(ensemble: ServedEnsemble, study: Study) -> StudyResult:
    """Asks the ensemble for one study."""
    outputs = {name: value.numpy()[0] for name, value in ensemble.answer([encode_study(study)]).items()}
    return StudyResult(study_id=study.study_id, **outputs)


def predict_source(
    root: Path,
    ensemble: ServedEnsemble,
    out: Path,
    *,
    series_map: Path | None = None,
    key: bytes | None = None,
    is_strict: bool = False,
    max_sheets: int | None = None,
    study_ids: frozenset[str] | None = None,
    progress: ProgressMaker = silent_progress,
) -> Prediction:
    """Grades every study of a folder or zip and writes the answers.

    Studies are read and graded one by one, so memory does not grow with their number.

    Args:
        root: see `imaging.sources.reading.read_source`.
        ensemble: the exported model.
        out: gets `submission.csv` (competition head), `probability.csv` (calibrated), `members.csv` (each
            member alone), `results.json`, `series.csv` (what was taken for which plane), `rejects.csv`
            (what was left out and why) and `sheets/<study>.png`.
        series_map: a table that overrides the source's own and the headers.
        key: replaces ids by keyed hashes.
        is_strict: whether the first fault in the input ends it.
        max_sheets: draw no more than so many; None draws one a study.
        study_ids: only these.
        progress: shows it.

    Returns:
        The results.

    Raises:
        ValueError: not one study could be read, or, with `is_strict`, there is a fault.
    """
    results: list[StudyResult] = []
    series: list[tuple[str, SeriesSummary]] = []
    rejects: list[Reject] = []
    num_readable = 0
    with open_cohort([root], series_map=series_map, key=key) as cohort:
        rejects.extend(cohort.rejects)
        for study in _read_studies(cohort, key, study_ids, progress):
            rejects.extend(study.rejects)
            if is_strict:
                refuse_faults(rejects)
            series.extend((study.study_id, each) for each in study.series)
            num_readable += bool(study.planes)
            # A study without a usable plane gets the prior, flagged: every study has its 25 rows.
            result = grade_study(ensemble, study)
            results.append(result)
            if study.planes and (max_sheets is None or num_readable <= max_sheets):
                draw_sheet(out / "sheets" / f"{study.study_id}.png", study, result)
    write_rejects(out / REJECTS_NAME, rejects)
    if not num_readable:
        reasons = sorted({each.reason.value for each in rejects})
        raise ValueError(
            f"{root} must hold at least one readable lumbar MRI study. Rejects: {reasons or 'none'}."
        )
    write_series(out / SERIES_NAME, series)
    write_submission(out / SUBMISSION_NAME, results)
    write_submission(out / PROBABILITY_NAME, results, head="probability")
    write_members(out / MEMBERS_NAME, results, ensemble.members)
    write_json(out / JSON_NAME, results, model=ensemble.path.name)
    return Prediction(tuple(results), tuple(rejects))


def _read_studies(
    cohort: Cohort, key: bytes | None, study_ids: frozenset[str] | None, progress: ProgressMaker
) -> Iterator[Study]:
    jobs = [each for each in cohort.jobs if study_ids is None or each.study_id in study_ids]
    with progress(len(jobs)) as advance:
        for job in jobs:
            study = read_study(job.files, job.series_planes)
            yield study if key is None else pseudonymise_study(study, key)
            advance(1)
