"""From DICOM to answers: reads studies, asks an ensemble, writes table, JSON and sheets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.config import PlaneConfig
from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.dicom.study import SeriesSummary, Study
from lumbar_tf.dicom.study_reader import read_study_files
from lumbar_tf.interop.result_formats import HospitalFormats, write_hospital_formats
from lumbar_tf.labels import Plane
from lumbar_tf.monitoring.log import AnswerLog
from lumbar_tf.monitoring.quantities import measure_answer
from lumbar_tf.prediction.crop_outlines import PlaneCropOutlines, find_crop_outlines, read_plane_configs
from lumbar_tf.prediction.prediction_audit import (
    UnansweredStudy,
    write_rejects,
    write_series,
    write_unanswered,
)
from lumbar_tf.prediction.results import (
    StudyFindings,
    write_intervals,
    write_members,
    write_results_json,
    write_submission,
)
from lumbar_tf.prediction.saliency import StudySaliency, take_saliency
from lumbar_tf.privacy.pseudonyms import pseudonymise_study
from lumbar_tf.records.cohort import CohortStudy, open_cohort
from lumbar_tf.records.schema import encode_plane
from lumbar_tf.records.study_records import refuse_faults
from lumbar_tf.reports.study_report import REPORTS_FOLDER, ModelSource, write_study_report
from lumbar_tf.reports.study_sheet import draw_study_sheet
from lumbar_tf.serving.errors import ServingError, ServingFailure
from lumbar_tf.serving.in_flight import predict_in_order
from lumbar_tf.synthetic.cohort import is_synthetic_cohort

SUBMISSION_NAME = "submission.csv"
PROBABILITY_NAME = "probability.csv"
JSON_NAME = "results.json"
MEMBERS_NAME = "members.csv"
INTERVALS_NAME = "intervals.csv"
SERIES_NAME = "series.csv"
REJECTS_NAME = "rejects.csv"
UNANSWERED_NAME = "unanswered.csv"
#: Written when all studies are done.
_LAST_NAMES = (SUBMISSION_NAME, PROBABILITY_NAME, INTERVALS_NAME, MEMBERS_NAME, JSON_NAME)

#: Studies in a row that remain without an answer before the rest is not asked: the server is gone.
GIVE_UP_AFTER = 3


class GradingModel(Protocol):
    """What grades studies: loaded here (`ServedEnsemble`) or behind a server (`RemoteEnsemble`).

    Attributes:
        version: the export's version.
        members: names of the members, the second axis of the output `members`; empty where unknown.
        description: what the export says of itself, as in its `ensemble.json`; empty where unknown. Only
            reports need it.
    """

    @property
    def version(self) -> str:
        """See the class."""

    @property
    def members(self) -> tuple[str, ...]:
        """See the class."""

    @property
    def description(self) -> Mapping[str, Any]:
        """See the class."""

    def answer(
        self, studies: Sequence[Mapping[Plane, bytes]], *, explained: bool = False
    ) -> Mapping[str, Any]:
        """Returns arrays or tensors by name, study first; explained ones with saliency where there is one."""


class NothingReadableError(ValueError):
    """Not one study of a source could be read.

    Attributes:
        reasons: the reason codes of what was left out.
    """

    def __init__(self, root: Path, reasons: Sequence[str]) -> None:
        """Takes what the message is made of."""
        self.reasons = tuple(reasons)
        super().__init__(
            f"{root} must hold at least one readable lumbar MRI study. Rejects: {list(reasons) or 'none'}."
        )


@dataclass(frozen=True, eq=False)
class Prediction:
    """What became of a source.

    Attributes:
        results: one a study; flagged as prior only where nothing could be read.
        rejects: files and studies that could not be used.
        unanswered: studies that a server did not answer.
    """

    results: tuple[StudyFindings, ...]
    rejects: tuple[Reject, ...]
    unanswered: tuple[UnansweredStudy, ...] = ()


@dataclass(frozen=True, eq=False)
class _Answer:
    """What came of asking about one study: a result, what is logged and what is shown of it, or an error."""

    result: StudyFindings | None = None
    logged: dict[str, float | None] | None = None
    evidence: Mapping[Plane, PlaneCropOutlines] = field(default_factory=dict)
    saliency: StudySaliency | None = None
    error: ServingError | None = None


@dataclass(eq=False)
class _Tables:
    """What is gathered study by study, and written at the end."""

    results: list[StudyFindings] = field(default_factory=list)
    series: list[tuple[str, SeriesSummary]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    unanswered: list[UnansweredStudy] = field(default_factory=list)
    num_readable: int = 0
    failed_in_a_row: int = 0

    def enter(self, study: Study, answer: _Answer, *, is_strict: bool) -> None:
        """Enters one study, answered or not."""
        self.rejects.extend(study.rejects)
        if is_strict:
            refuse_faults(self.rejects)
        self.series.extend((study.study_id, each) for each in study.series)
        self.num_readable += bool(study.planes)
        if answer.result is not None:
            self.results.append(answer.result)
        error = answer.error
        if error is None:
            self.failed_in_a_row = 0
            return
        if is_strict:
            raise ValueError(f"study {study.study_id}: {error}") from error
        self.unanswered.append(UnansweredStudy(study.study_id, error.failure, error.attempts, str(error)))
        # A study that is too large, or that the model refuses, says nothing of the next one.
        self.failed_in_a_row = self.failed_in_a_row + 1 if error.failure.is_transient else 0

    def enter_not_asked(self, study_ids: Iterable[str]) -> None:
        """Enters those of the studies that have neither an answer nor an error."""
        done = {each.study_id for each in self.results} | {each.study_id for each in self.unanswered}
        message = f"{GIVE_UP_AFTER} studies before it had no answer"
        self.unanswered.extend(
            UnansweredStudy(each, ServingFailure.NOT_ASKED, 0, message)
            for each in study_ids
            if each not in done
        )

    def write(self, out: Path, ensemble: GradingModel) -> None:
        """Writes all tables but the rejects."""
        write_series(out / SERIES_NAME, self.series)
        write_submission(out / SUBMISSION_NAME, self.results)
        write_submission(out / PROBABILITY_NAME, self.results, head="probability")
        write_intervals(out / INTERVALS_NAME, self.results)
        count = len(self.results[0].members) if self.results else 0
        numbered = tuple(f"member_{place + 1}" for place in range(count))
        write_members(out / MEMBERS_NAME, self.results, ensemble.members or numbered)
        write_results_json(out / JSON_NAME, self.results, model=ensemble.version)
        if self.unanswered:
            write_unanswered(out / UNANSWERED_NAME, self.unanswered)


def encode_study(study: Study) -> dict[Plane, bytes]:
    """Returns a study's serialized Examples, without labels."""
    return {plane: encode_plane(study.study_id, plane, slices) for plane, slices in study.planes.items()}


def grade_study(
    ensemble: GradingModel, study_id: str, examples: Mapping[Plane, bytes], *, explained: bool = False
) -> tuple[StudyFindings, StudySaliency | None]:
    """Asks the ensemble for one study, once.

    Outputs without a field in `StudyFindings` become its `extras`. Saliency is returned beside it if it was
    requested and the ensemble has it.
    """
    given = ensemble.answer([examples], explained=explained)
    outputs = {name: np.asarray(value)[0] for name, value in given.items()}
    saliency = take_saliency(outputs)
    known = {each.name for each in fields(StudyFindings)} - {"extras"}
    extras = {name: value for name, value in outputs.items() if name not in known}
    result = StudyFindings(
        study_id=study_id, **{name: outputs[name] for name in outputs if name in known}, extras=extras
    )
    return result, saliency


def predict_source(
    root: Path,
    ensemble: GradingModel,
    out: Path,
    *,
    series_map: Path | None = None,
    key: bytes | None = None,
    is_strict: bool = False,
    max_sheets: int | None = None,
    has_reports: bool = False,
    study_ids: frozenset[str] | None = None,
    max_in_flight: int = 1,
    log: AnswerLog | None = None,
    formats: HospitalFormats | None = None,
    progress: ProgressMaker = silent_progress,
) -> Prediction:
    """Grades every study of a folder or zip and writes the answers.

    Studies are read one by one, so memory does not grow with their number. A study that a server does not
    answer is in `unanswered.csv` and has no result, and the others go on; after `GIVE_UP_AFTER` of them in a
    row the rest is not asked.

    Args:
        root: see `dicom.sources.study_source.read_source`.
        ensemble: the exported model, or a server of it.
        out: gets `submission.csv` (competition head), `probability.csv` (calibrated), `intervals.csv`
            (likewise, with bounds), `members.csv` (each member alone), `results.json`, `series.csv` (what was
            taken for which plane), `rejects.csv` (what was left out and why), `sheets/<study>.png` and
            `reports/<study>.html`.
        series_map: a table that overrides the source's own and the headers.
        key: replaces ids by keyed hashes.
        is_strict: whether the first fault in the input, or the first study without an answer, ends it.
        max_sheets: draw no more than so many; None draws one a study.
        has_reports: whether to write a page for each study that was answered.
        study_ids: only these.
        max_in_flight: how many studies are asked about at a time; more than 1 is for a server.
        log: gets a row a study.
        formats: what else to write; it holds patient data of the source, or pseudonyms with a key.
        progress: shows it.

    Returns:
        The results.

    Raises:
        NothingReadableError: (a ValueError) not one study could be read.
        ValueError: with `is_strict`, there is a fault.
    """
    tables = _Tables()
    with open_cohort([root], series_map=series_map, key=key) as cohort:
        tables.rejects.extend(cohort.rejects)
        jobs = [each for each in cohort.jobs if study_ids is None or each.study_id in study_ids]
        configs = read_plane_configs(ensemble.description) if has_reports else {}
        source = ModelSource(ensemble.version, ensemble.members, is_synthetic_cohort(root))

        def ask(study: Study) -> _Answer:
            return _ask(ensemble, study, configs, is_logged=log is not None, explained=has_reports)

        _remove_tables(out)
        with progress(len(jobs)) as advance:
            studies = _read_studies(jobs, key, keep_header=bool(formats))
            for study, answer in predict_in_order(studies, ask, max_in_flight=max_in_flight):
                tables.enter(study, answer, is_strict=is_strict)
                if log is not None and answer.logged is not None:
                    log.append(
                        answer.logged, model=ensemble.version, study_id=study.study_id if key else None
                    )
                is_shown = study.planes and (max_sheets is None or tables.num_readable <= max_sheets)
                if answer.result is not None and is_shown:
                    draw_study_sheet(out / "sheets" / f"{study.study_id}.png", study, answer.result)
                if answer.result is not None and has_reports:
                    path = out / REPORTS_FOLDER / f"{study.study_id}.html"
                    write_study_report(path, study, answer.result, source, answer.evidence, answer.saliency)
                if answer.result is not None and formats:
                    write_hospital_formats(out, study, answer.result, formats, model=ensemble.version)
                advance(1)
                if tables.failed_in_a_row == GIVE_UP_AFTER:
                    break
    tables.enter_not_asked(each.study_id for each in jobs)
    write_rejects(out / REJECTS_NAME, tables.rejects)
    if not tables.num_readable:
        reasons = sorted({each.reason.value for each in tables.rejects})
        raise NothingReadableError(root, reasons)
    tables.write(out, ensemble)
    return Prediction(tuple(tables.results), tuple(tables.rejects), tuple(tables.unanswered))


def _remove_tables(out: Path) -> None:
    """Removes an earlier run's tables: a run that is cut off must not leave them beside its own reports."""
    for name in (*_LAST_NAMES, SERIES_NAME, REJECTS_NAME, UNANSWERED_NAME):
        (out / name).unlink(missing_ok=True)


def _ask(
    ensemble: GradingModel,
    study: Study,
    configs: Mapping[Plane, PlaneConfig],
    *,
    is_logged: bool,
    explained: bool,
) -> _Answer:
    """Asks about one study; safe to call from several threads where the ensemble is.

    Where the crops of planes with a configuration lie is found here, while there are the examples.
    """
    # A study without a usable plane gets the prior, flagged: every study has its 25 rows.
    examples = encode_study(study)
    try:
        result, saliency = grade_study(ensemble, study.study_id, examples, explained=explained)
    except ServingError as error:
        return _Answer(error=error)
    logged = None
    if is_logged:
        logged = measure_answer(
            result.probability, result.members, result.landmarks, result.flags, examples, extras=result.extras
        )
    return _Answer(result, logged, find_crop_outlines(configs, examples, result.landmarks), saliency)


def _read_studies(jobs: Sequence[CohortStudy], key: bytes | None, *, keep_header: bool) -> Iterator[Study]:
    for job in jobs:
        study = read_study_files(job.files, job.series_planes, keep_header=keep_header)
        yield study if key is None else pseudonymise_study(study, key)
