"""From DICOM to answers: reads studies, asks an exported ensemble, writes table, JSON and sheets."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.data.series_table import read_series_table
from lumbar_tf.ensemble.bundle import ServedEnsemble
from lumbar_tf.imaging.dicom import read_study
from lumbar_tf.imaging.sources import read_source
from lumbar_tf.imaging.study import Reject, Study, no_slices
from lumbar_tf.labels import Plane
from lumbar_tf.progress import ProgressMaker, silent_progress
from lumbar_tf.records.schema import encode_plane
from lumbar_tf.reporting.results import StudyResult, write_json, write_members, write_submission
from lumbar_tf.reporting.sheet import draw_sheet

SUBMISSION_NAME = "submission.csv"
PROBABILITY_NAME = "probability.csv"
JSON_NAME = "results.json"
MEMBERS_NAME = "members.csv"


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
    max_sheets: int | None = None,
    study_ids: frozenset[str] | None = None,
    progress: ProgressMaker = silent_progress,
) -> Prediction:
    """Grades every study of a folder or zip and writes the answers.

    Studies are read and graded one by one, so memory does not grow with their number.

    Args:
        root: see `imaging.sources.read_source`.
        ensemble: the exported model.
        out: gets `submission.csv` (competition head), `probability.csv` (calibrated), `members.csv` (each
            member alone), `results.json` and `sheets/<study>.png`.
        max_sheets: draw no more than so many; None draws one a study.
        study_ids: only these.
        progress: shows it.

    Returns:
        The results.

    Raises:
        ValueError: not one study could be read.
    """
    results: list[StudyResult] = []
    rejects: list[Reject] = []
    num_readable = 0
    for study in _read_studies(root, study_ids, progress):
        rejects.extend(study.rejects)
        if not study.planes:
            rejects.append(no_slices(study.study_id))
        num_readable += bool(study.planes)
        # A study without a usable plane gets the prior, flagged: every study has its 25 rows.
        result = grade_study(ensemble, study)
        results.append(result)
        if study.planes and (max_sheets is None or num_readable <= max_sheets):
            draw_sheet(out / "sheets" / f"{study.study_id}.png", study, result)
    if not num_readable:
        reasons = sorted({each.reason.value for each in rejects})
        raise ValueError(
            f"{root} must hold at least one readable lumbar MRI study. Rejects: {reasons or 'none'}."
        )
    write_submission(out / SUBMISSION_NAME, results)
    write_submission(out / PROBABILITY_NAME, results, head="probability")
    write_members(out / MEMBERS_NAME, results, ensemble.members)
    write_json(out / JSON_NAME, results, model=ensemble.path.name)
    return Prediction(tuple(results), tuple(rejects))


def _read_studies(root: Path, study_ids: frozenset[str] | None, progress: ProgressMaker) -> Iterator[Study]:
    with read_source(root) as source:
        series_planes, _ = read_series_table(source.series) if source.series else ({}, [])
        folders = [each for each in source.studies if study_ids is None or each.study_id in study_ids]
        with progress(len(folders)) as advance:
            for each in folders:
                yield read_study(each.folder, series_planes.get(each.study_id), study_id=each.study_id)
                advance(1)
