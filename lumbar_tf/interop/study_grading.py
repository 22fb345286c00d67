"""Grading of one fetched study by the watch, and storage of its DICOM results."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom

from lumbar_tf.dicom.files.headers import suppress_pydicom_warnings
from lumbar_tf.interop.interfaces import PacsError, PacsFault, ResultSink, StopCheck, StoppedError, never
from lumbar_tf.interop.result_formats import DICOM_FOLDER, predict_to_folder
from lumbar_tf.interop.watch_journal import ResultFile
from lumbar_tf.monitoring.log import AnswerLog
from lumbar_tf.prediction.pipeline import GradingModel
from lumbar_tf.serving.transport import ServingError


@dataclass(frozen=True, eq=False)
class StudyGrader:
    """Model, output folder and output formats of a watch.

    Attributes:
        ensemble: exported model, loaded once, or a server's model.
        out: output folder, with one folder per study.
        formats: names of the output formats, of `result_formats.OUTPUT_FORMATS`.
        log: log for `lumbar_tf.monitor`, to which one row per study is appended.
    """

    ensemble: GradingModel
    out: Path
    formats: tuple[str, ...] = ()
    log: AnswerLog | None = None

    def folder(self, study_uid: str) -> Path:
        """Returns the folder of a study's results."""
        return self.out / study_uid

    def grade(self, study_uid: str, images: Path) -> tuple[ResultFile, ...]:
        """Grades a study.

        Args:
            study_uid: StudyInstanceUID; files of other studies in the folder are ignored.
            images: folder of the study's images.

        Returns:
            The DICOM files that were written.

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
        )
        for study in prediction.unanswered:
            raise ServingError(study.failure, study.message, address="the server", attempts=study.attempts)
        return find_results(folder, study_uid)


def find_results(folder: Path, study_uid: str) -> tuple[ResultFile, ...]:
    """Returns a study's DICOM results in an output folder, the structured report first."""
    names = (f"{DICOM_FOLDER}/{study_uid}.{kind}.dcm" for kind in ("sr", "sc"))
    with suppress_pydicom_warnings():
        return tuple(
            ResultFile(
                str(pydicom.dcmread(folder / name, specific_tags=["SOPInstanceUID"]).SOPInstanceUID), name
            )
            for name in names
            if (folder / name).is_file()
        )


def store_results(
    sink: ResultSink, folder: Path, results: Iterable[ResultFile], *, should_stop: StopCheck = never
) -> Iterator[ResultFile]:
    """Stores the DICOM results of a study one by one.

    Args:
        sink: receiver of the results.
        folder: folder of the study's results.
        results: files to store.
        should_stop: called before each file.

    Yields:
        Each file once it is stored.

    Raises:
        PacsError: the sink does not store a file, or the file no longer exists.
        OSError: a file cannot be read.
        StoppedError: the program was asked to stop.
    """
    for result in results:
        if should_stop():
            raise StoppedError
        path = folder / result.file
        if not path.is_file():
            raise PacsError(PacsFault.ABSENT, f"{result.file} no longer exists")
        sink.store(path)
        yield result
