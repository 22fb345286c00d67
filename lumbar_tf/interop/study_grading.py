"""Grading of one fetched study by the watch, and storage of its DICOM results."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from lumbar_tf.dicom.files.headers import suppress_pydicom_warnings
from lumbar_tf.interop.interfaces import PacsError, PacsFault, ResultSink, StopCheck, StoppedError, never
from lumbar_tf.interop.output_formats import DICOM_FOLDER, OutputFormat, find_files
from lumbar_tf.interop.result_formats import predict_to_folder
from lumbar_tf.interop.source_references import ReportReference
from lumbar_tf.interop.watch_journal import ResultFile
from lumbar_tf.monitoring.log import AnswerLog
from lumbar_tf.prediction.impression_phrases import Language
from lumbar_tf.prediction.pipeline import GradingModel
from lumbar_tf.serving.transport import ServingError


@dataclass(frozen=True, eq=False)
class StudyGrader:
    """Model, output folder and output formats of a watch.

    Attributes:
        ensemble: exported model, loaded once, or a server's model.
        out: output folder, with one folder per study.
        formats: output formats, of which those for an archive are stored.
        log: log for `lumbar_tf.monitor`, to which one row per study is appended.
        language: language of the impressions.
    """

    ensemble: GradingModel
    out: Path
    formats: tuple[OutputFormat, ...] = ()
    log: AnswerLog | None = None
    language: Language = Language.ENGLISH

    def folder(self, study_uid: str) -> Path:
        """Returns the folder of a study's results."""
        return self.out / study_uid

    def grade(
        self, study_uid: str, images: Path, replaced: Sequence[ResultFile] = ()
    ) -> tuple[ResultFile, ...]:
        """Grades a study.

        Args:
            study_uid: StudyInstanceUID; files of other studies in the folder are ignored.
            images: folder of the study's images.
            replaced: reports of earlier gradings, oldest first, which the new report replaces.

        Returns:
            The DICOM files to store.

        Raises:
            NothingReadableError: the study has no series that can be graded.
            ServingError: the server returned no result.
        """
        folder = self.folder(study_uid)
        prediction = predict_to_folder(
            images,
            self.ensemble,
            folder,
            formats=self.formats,
            log=self.log,
            study_ids=frozenset({study_uid}),
            language=self.language,
            replaced_reports=[
                ReportReference(report.sop_instance_uid, report.series_uid) for report in replaced
            ],
        )
        for study in prediction.unanswered:
            raise ServingError(study.failure, study.message, address="the server", attempts=study.attempts)
        return find_results(folder, study_uid, self.formats)


def find_results(folder: Path, study_uid: str, formats: Iterable[OutputFormat]) -> tuple[ResultFile, ...]:
    """Returns a study's DICOM results of some formats in an output folder, the structured report first."""
    written = set(formats)
    suffixes = [each.spec.suffix for each in OutputFormat if each.is_dicom and each in written]
    paths = [
        path for suffix in suffixes for path in find_files(folder / DICOM_FOLDER / f"{study_uid}{suffix}")
    ]
    with suppress_pydicom_warnings():
        return tuple(_result_file(folder, path.relative_to(folder).as_posix()) for path in paths)


def _result_file(folder: Path, name: str) -> ResultFile:
    dataset = pydicom.dcmread(folder / name, specific_tags=["SOPInstanceUID", "SeriesInstanceUID"])
    return ResultFile(str(dataset.SOPInstanceUID), name, str(dataset.SeriesInstanceUID))


def store_results(
    sink: ResultSink, folder: Path, results: Iterable[ResultFile], *, should_stop: StopCheck = never
) -> Iterator[ResultFile]:
    """Stores the DICOM results of a study one by one. One that is refused does not withhold the others.

    Args:
        sink: receiver of the results.
        folder: folder of the study's results.
        results: files to store.
        should_stop: called before each file.

    Yields:
        Each file once it is stored.

    Raises:
        PacsError: the sink is not available; or, after all other files, it refused some, or they no longer
            exist.
        OSError: a file cannot be read.
        StoppedError: the program was asked to stop.
    """
    refused: list[PacsError] = []
    for result in results:
        if should_stop():
            raise StoppedError
        path = folder / result.file
        try:
            if not path.is_file():
                raise PacsError(PacsFault.ABSENT, f"{result.file} no longer exists")
            sink.store(path)
        except PacsError as error:
            if error.is_transient:
                raise
            refused.append(error)
        else:
            yield result
    if refused:
        raise PacsError(refused[0].fault, "; ".join(error.message for error in refused))
