"""Grading of studies: from DICOM files through an ensemble to findings and tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.config import PlaneConfig
from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.dicom.sources.study_source import is_synthetic_source
from lumbar_tf.dicom.study import SeriesSummary, Study
from lumbar_tf.dicom.study_reader import read_study_files
from lumbar_tf.labels import Plane
from lumbar_tf.prediction import result_tables
from lumbar_tf.prediction.crop_outlines import find_crop_outlines, read_plane_configs
from lumbar_tf.prediction.impression_phrases import Language
from lumbar_tf.prediction.result_tables import UnansweredStudy
from lumbar_tf.prediction.results import GradedStudy, ModelSource, StudyFindings
from lumbar_tf.prediction.saliency import StudySaliency, take_saliency
from lumbar_tf.privacy.pseudonyms import pseudonymise_study
from lumbar_tf.records.cohort import CohortStudy, open_cohort, raise_first_fault
from lumbar_tf.records.schema import encode_plane
from lumbar_tf.serving.contract import parse_coverage
from lumbar_tf.serving.remote import predict_in_order
from lumbar_tf.serving.training_data import TrainingData
from lumbar_tf.serving.transport import ServingError, ServingFailure

#: Consecutive studies without an answer after which a server is taken to be down.
GIVE_UP_AFTER = 3

#: Receives each graded study, to write its files or to log it.
ResultWriter = Callable[[GradedStudy], None]


class GradingModel(Protocol):
    """An exported ensemble: loaded in this process (`ServedEnsemble`) or on a server (`RemoteEnsemble`).

    Attributes:
        version: the export's version.
        members: names of the members, the second axis of the output `members`; empty where unknown.
        description: content of the export's `ensemble.json`; empty where unknown. Only reports need it.
        training: the studies that it was trained on.
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

    @property
    def training(self) -> TrainingData:
        """See the class."""

    def predict(
        self, studies: Sequence[Mapping[Plane, bytes]], *, with_saliency: bool = False
    ) -> Mapping[str, Any]:
        """Returns outputs by name, study first; includes saliency if requested and available."""


class NothingReadableError(ValueError):
    """A source without a single readable study.

    Attributes:
        reasons: the reason codes of what was left out.
    """

    def __init__(self, root: Path, reasons: Sequence[str]) -> None:
        """Makes the message of a source and reason codes."""
        self.reasons = tuple(reasons)
        super().__init__(
            f"{root} must hold at least one readable lumbar MRI study. Rejects: {list(reasons) or 'none'}."
        )


@dataclass(frozen=True, eq=False)
class Prediction:
    """Outcome of grading a source.

    Attributes:
        results: findings of each study; flagged as prior only where no plane could be read.
        rejects: files and studies that could not be used.
        unanswered: studies without a prediction from the server.
    """

    results: tuple[StudyFindings, ...]
    rejects: tuple[Reject, ...]
    unanswered: tuple[UnansweredStudy, ...] = ()


@dataclass(eq=False)
class _Tables:
    """Rows that are gathered study by study, and written at the end."""

    results: list[StudyFindings] = field(default_factory=list)
    series: list[tuple[str, SeriesSummary]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    unanswered: list[UnansweredStudy] = field(default_factory=list)
    num_readable: int = 0
    failed_in_a_row: int = 0

    def enter(self, study: Study, graded: GradedStudy | ServingError, *, is_strict: bool) -> None:
        """Adds one study, graded or not."""
        self.rejects.extend(study.rejects)
        if is_strict:
            raise_first_fault(self.rejects)
        self.series.extend((study.study_id, series) for series in study.series)
        self.num_readable += bool(study.planes)
        if isinstance(graded, GradedStudy):
            self.results.append(graded.findings)
            self.failed_in_a_row = 0
            return
        if is_strict:
            raise ValueError(f"study {study.study_id}: {graded}") from graded
        self.unanswered.append(UnansweredStudy(study.study_id, graded.failure, graded.attempts, str(graded)))
        # A study that is too large, or that the model refuses, is no evidence of a server that is down.
        self.failed_in_a_row = self.failed_in_a_row + 1 if graded.failure.is_transient else 0

    def enter_not_asked(self, study_ids: Iterable[str]) -> None:
        """Adds the studies that have neither findings nor an error."""
        done = {study.study_id for study in self.results} | {study.study_id for study in self.unanswered}
        message = f"{GIVE_UP_AFTER} studies before it had no answer"
        self.unanswered.extend(
            UnansweredStudy(study_id, ServingFailure.NOT_ASKED, 0, message)
            for study_id in study_ids
            if study_id not in done
        )

    def write(self, out: Path, model: GradingModel, language: Language) -> None:
        """Writes all tables but the rejects."""
        result_tables.write_series(out / result_tables.SERIES_NAME, self.series)
        result_tables.write_submission(out / result_tables.SUBMISSION_NAME, self.results)
        result_tables.write_submission(out / result_tables.PROBABILITY_NAME, self.results, head="probability")
        result_tables.write_intervals(out / result_tables.INTERVALS_NAME, self.results)
        if any(result.prediction_set is not None for result in self.results):
            result_tables.write_prediction_sets(out / result_tables.SETS_NAME, self.results)
        count = len(self.results[0].members) if self.results else 0
        numbered = tuple(f"member_{place + 1}" for place in range(count))
        result_tables.write_members(out / result_tables.MEMBERS_NAME, self.results, model.members or numbered)
        result_tables.write_results_json(
            out / result_tables.JSON_NAME, self.results, model=model.version, language=language
        )
        if self.unanswered:
            result_tables.write_unanswered(out / result_tables.UNANSWERED_NAME, self.unanswered)


def encode_study(study: Study) -> dict[Plane, bytes]:
    """Returns a study's serialized Examples by plane, without labels."""
    return {plane: encode_plane(study.study_id, plane, slices) for plane, slices in study.planes.items()}


def grade_examples(
    model: GradingModel, study_id: str, examples: Mapping[Plane, bytes], *, with_saliency: bool = False
) -> tuple[StudyFindings, StudySaliency | None]:
    """Sends one study's Examples to the model, once.

    Outputs without a field in `StudyFindings` become its `extras`. Saliency is returned beside it if it was
    requested and the model has it.
    """
    given = model.predict([examples], with_saliency=with_saliency)
    outputs = {name: np.asarray(value)[0] for name, value in given.items()}
    saliency = take_saliency(outputs)
    known = {item.name for item in fields(StudyFindings)}
    known -= {"study_id", "extras", "training", "set_coverage"}
    extras = {name: value for name, value in outputs.items() if name not in known}
    findings = StudyFindings(
        study_id=study_id,
        **{name: outputs[name] for name in outputs if name in known},
        set_coverage=parse_coverage(model.description) if "prediction_set" in outputs else None,
        extras=extras,
        training=model.training,
    )
    return findings, saliency


def grade_study(
    model: GradingModel,
    study: Study,
    *,
    configs: Mapping[Plane, PlaneConfig] | None = None,
    is_synthetic: bool = False,
    with_saliency: bool = False,
    language: Language = Language.ENGLISH,
) -> GradedStudy:
    """Grades one study; safe to call from several threads if the model is.

    Args:
        model: the ensemble.
        study: its slices. A study without a usable plane gets the prior, flagged, so that every study has
            its 25 findings.
        configs: configurations of the planes whose crops are outlined; see `read_plane_configs`.
        is_synthetic: whether the study is known to be synthetic.
        with_saliency: whether to request saliency.
        language: language of the impression.

    Raises:
        ServingError: the server returned no prediction.
    """
    examples = encode_study(study)
    findings, saliency = grade_examples(model, study.study_id, examples, with_saliency=with_saliency)
    return GradedStudy(
        study=study,
        findings=findings,
        source=ModelSource(model.version, tuple(model.members), is_synthetic),
        examples=examples,
        crop_outlines=find_crop_outlines(configs or {}, examples, findings.landmarks),
        saliency=saliency,
        language=language,
    )


@contextmanager
def open_studies(
    root: Path,
    *,
    series_map: Path | None = None,
    key: bytes | None = None,
    study_ids: frozenset[str] | None = None,
    keep_header: bool = False,
) -> Iterator[tuple[tuple[str, ...], tuple[Reject, ...], Iterator[Study]]]:
    """Finds the studies of a folder or zip; yields their ids, what was left out, and the studies.

    Studies are read one at a time, as they are taken from the iterator. A zip stays unpacked for as long as
    the block runs.

    Args:
        root: see `dicom.sources.study_source.read_source`.
        series_map: a table that overrides the source's own and the headers.
        key: replaces ids by keyed hashes.
        study_ids: restricts the studies to these.
        keep_header: whether `Study.header` holds the DICOM header.
    """
    with open_cohort([root], series_map=series_map, key=key) as cohort:
        jobs = [job for job in cohort.jobs if study_ids is None or job.study_id in study_ids]
        studies = _read_studies(jobs, key, keep_header=keep_header)
        yield tuple(job.study_id for job in jobs), cohort.rejects, studies


def predict_source(
    root: Path,
    model: GradingModel,
    out: Path | None = None,
    *,
    series_map: Path | None = None,
    key: bytes | None = None,
    is_strict: bool = False,
    study_ids: frozenset[str] | None = None,
    max_in_flight: int = 1,
    with_saliency: bool = False,
    with_outlines: bool = False,
    keep_header: bool = False,
    language: Language = Language.ENGLISH,
    writers: Sequence[ResultWriter] = (),
    progress: ProgressMaker = silent_progress,
) -> Prediction:
    """Grades every study of a folder or zip, and writes tables and each study's files.

    Studies are read one by one, so memory does not grow with their number. A study without a prediction from
    a server is listed in `unanswered.csv` and has no findings, and the others go on; after `GIVE_UP_AFTER`
    consecutive failures the rest is not sent.

    Args:
        root: see `dicom.sources.study_source.read_source`.
        model: the exported ensemble, or a server of it.
        out: folder for the tables of `result_tables`; None writes none.
        series_map: a table that overrides the source's own and the headers.
        key: replaces ids by keyed hashes.
        is_strict: whether the first fault in the input, or the first study without a prediction, is fatal.
        study_ids: restricts the studies to these.
        max_in_flight: number of concurrent requests; more than 1 is for a server.
        with_saliency: whether to request saliency, which reports show.
        with_outlines: whether to outline the crops, which reports and presentation states show.
        keep_header: whether studies keep their DICOM header, which results for an archive repeat.
        language: language of the impression.
        writers: called with each graded study, in the studies' order.
        progress: shows the studies that are done.

    Returns:
        Findings, rejects and failures.

    Raises:
        NothingReadableError: (a ValueError) not one study could be read.
        ValueError: with `is_strict`, there is a fault.
    """
    tables = _Tables()
    configs = read_plane_configs(model.description) if with_outlines else {}
    with open_studies(root, series_map=series_map, key=key, study_ids=study_ids, keep_header=keep_header) as (
        found_ids,
        rejects,
        studies,
    ):
        tables.rejects.extend(rejects)
        is_synthetic = is_synthetic_source(root)

        def grade(study: Study) -> GradedStudy | ServingError:
            try:
                return grade_study(
                    model,
                    study,
                    configs=configs,
                    is_synthetic=is_synthetic,
                    with_saliency=with_saliency,
                    language=language,
                )
            except ServingError as error:
                return error

        if out is not None:
            _remove_tables(out)
        with progress(len(found_ids)) as advance:
            for study, graded in predict_in_order(studies, grade, max_in_flight=max_in_flight):
                tables.enter(study, graded, is_strict=is_strict)
                if isinstance(graded, GradedStudy):
                    for write in writers:
                        write(graded)
                advance(1)
                if tables.failed_in_a_row == GIVE_UP_AFTER:
                    break
    tables.enter_not_asked(found_ids)
    if out is not None:
        result_tables.write_rejects(out / result_tables.REJECTS_NAME, tables.rejects)
    if not tables.num_readable:
        raise NothingReadableError(root, sorted({reject.reason.value for reject in tables.rejects}))
    if out is not None:
        tables.write(out, model, language)
    return Prediction(tuple(tables.results), tuple(tables.rejects), tuple(tables.unanswered))


def _remove_tables(out: Path) -> None:
    """Removes an earlier run's tables: an interrupted run must not leave them beside its own reports."""
    for name in result_tables.TABLE_NAMES:
        (out / name).unlink(missing_ok=True)


def _read_studies(jobs: Sequence[CohortStudy], key: bytes | None, *, keep_header: bool) -> Iterator[Study]:
    for job in jobs:
        study = read_study_files(job.files, job.series_planes, keep_header=keep_header)
        yield study if key is None else pseudonymise_study(study, key)
