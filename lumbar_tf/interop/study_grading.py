"""Grades one fetched study into a folder of its own, as `predict` does."""

from dataclasses import dataclass
from pathlib import Path

import pydicom

from lumbar_tf.dicom.files.pydicom_warnings import suppress_pydicom_warnings
from lumbar_tf.interop.result_formats import DICOM_FOLDER, predict_to_folder
from lumbar_tf.interop.watch_journal import ResultFile
from lumbar_tf.monitoring.log import AnswerLog
from lumbar_tf.prediction.pipeline import GradingModel
from lumbar_tf.serving.errors import ServingError


@dataclass(frozen=True, eq=False)
class StudyGrader:
    """What grades, and what is written of an answer.

    Attributes:
        ensemble: the exported model, loaded once, or a server of it.
        out: gets a folder a study.
        formats: names of the files that are written, in `result_formats.OUTPUT_FORMATS`.
        log: gets a row a study.
    """

    ensemble: GradingModel
    out: Path
    formats: tuple[str, ...] = ("sheets", "report")
    log: AnswerLog | None = None

    def folder(self, study_uid: str) -> Path:
        """Returns where a study's answers are."""
        return self.out / study_uid

    def grade(self, study_uid: str, images: Path) -> tuple[ResultFile, ...]:
        """Grades the study in a folder, and no other that may lie in it.

        Returns:
            The DICOM files that were written.

        Raises:
            NothingReadableError: the study has no series that can be graded.
            ServingError: the server gave no answer.
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
        for each in prediction.unanswered:
            raise ServingError(each.failure, each.message, address="the server", attempts=each.attempts)
        return find_results(folder, study_uid)


def find_results(folder: Path, study_uid: str) -> tuple[ResultFile, ...]:
    """Returns a study's DICOM results below a folder of answers, the structured report first."""
    names = (f"{DICOM_FOLDER}/{study_uid}.{kind}.dcm" for kind in ("sr", "sc"))
    with suppress_pydicom_warnings():
        return tuple(
            ResultFile(
                str(pydicom.dcmread(folder / name, specific_tags=["SOPInstanceUID"]).SOPInstanceUID), name
            )
            for name in names
            if (folder / name).is_file()
        )
