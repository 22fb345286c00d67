"""Results of grading, and the formats that they are written in."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.dicom.study import Study
from lumbar_tf.interop.output_formats import (
    DEFAULT_FORMATS,
    OutputFormat,
    check_extras,
    find_files,
    parse_formats,
)
from lumbar_tf.interop.result_formats import FORMAT_WRITERS
from lumbar_tf.labels import Plane
from lumbar_tf.prediction.crop_outlines import PlaneCropOutlines
from lumbar_tf.prediction.impression import make_impression
from lumbar_tf.prediction.impression_phrases import parse_language
from lumbar_tf.prediction.pipeline import Prediction
from lumbar_tf.prediction.result_tables import UnansweredStudy
from lumbar_tf.prediction.results import GradedStudy, findings_frame, result_to_json

if TYPE_CHECKING:
    import pandas as pd

#: Names of the files that can be written for each study.
FORMATS: tuple[str, ...] = tuple(each.value for each in OutputFormat)
#: Those that are written by default.
DEFAULT_FORMAT_NAMES: tuple[str, ...] = tuple(each.value for each in DEFAULT_FORMATS)


def check_formats(formats: Iterable[str]) -> None:
    """Checks names of output formats before work starts.

    Raises:
        ValueError: a name is not in `FORMATS`, or a package that its format needs is not installed.
    """
    check_extras(parse_formats(formats))


@dataclass(frozen=True, eq=False)
class StudyResult:
    """The findings of one study.

    Attributes:
        graded: the study, its findings and what reports show of it (not part of the public API).
    """

    graded: GradedStudy

    @property
    def study(self) -> Study:
        """The study that was graded."""
        return self.graded.study

    @property
    def study_id(self) -> str:
        """Id of the study."""
        return self.graded.study.study_id

    @property
    def model_version(self) -> str:
        """Version of the bundle that graded the study."""
        return self.graded.source.version

    @property
    def training_note(self) -> str:
        """Sentences about the studies that the model was trained on, which every format states first."""
        return self.graded.findings.training_note

    def to_frame(self) -> "pd.DataFrame":
        """Returns a `pandas.DataFrame` with one row for each of the 25 findings.

        Columns: `study_id`; `condition`, such as "neural foraminal narrowing"; `side`, the patient's "left"
        or "right", "" for the canal; `level`, such as "L4/L5"; `grade`, the most probable severity, "" where
        no image contributed; calibrated probabilities `normal_mild`, `moderate` and `severe`, each with
        bounds `..._low` and `..._high`; `competition_normal_mild` and so on, predictions for the weighted
        metric; the landmark `x_mm`, `y_mm`, `z_mm` in LPS patient coordinates; `flags`, separated by blanks;
        `training_note`.
        """
        return findings_frame(self.graded.findings)

    def to_json(self) -> str:
        """Returns the findings as JSON, in the layout of a study in `results.json`."""
        content = result_to_json(self.graded.findings, self.graded.language)
        return json.dumps(content, indent=1, allow_nan=False)

    def impression(self, language: str | None = None) -> str:
        """Returns the findings in a few sentences, worst first, marked as a draft of a research system.

        Args:
            language: `en`, `de`, `fr` or `es`; by default that of the grading.

        Raises:
            ValueError: the language is another one.
        """
        chosen = self.graded.language if language is None else parse_language(language)
        return make_impression(self.graded.findings, chosen)

    def to_fhir(self) -> dict[str, Any]:
        """Returns a FHIR R4 Bundle: a DiagnosticReport and an Observation for each finding.

        Raises:
            ValueError: the study has no slices.
        """
        from lumbar_tf.interop.fhir import make_fhir_bundle
        from lumbar_tf.interop.source_references import find_references

        self._check_slices("a FHIR report")
        return dict(
            make_fhir_bundle(
                find_references(self.study),
                self.graded.findings,
                model=self.model_version,
                issued=datetime.now(UTC),
                language=self.graded.language,
            )
        )

    @property
    def crop_outlines(self) -> Mapping[Plane, PlaneCropOutlines]:
        """Position of the graders' crops by plane.

        `crops` maps a row of `to_frame` to outlines, each with `index`, the slice's place in
        `arrange_slices` order, and `corners`, float32 [4, 3] in LPS mm.
        """
        return self.graded.crop_outlines

    def write_sheet(self, path: str | Path) -> Path:
        """Writes a PNG picture: level points on the slices, and the 25 probabilities."""
        from lumbar_tf.reports.study_sheet import draw_study_sheet

        draw_study_sheet(Path(path), self.graded.study, self.graded.findings)
        return Path(path)

    def write_report(self, path: str | Path) -> Path:
        """Writes a self-contained HTML report, with the slices and crops that were graded."""
        from lumbar_tf.reports.study_report import write_study_report

        graded = self.graded
        target = Path(path)
        write_study_report(
            target,
            graded.study,
            graded.findings,
            graded.source,
            graded.crop_outlines,
            graded.saliency,
            language=graded.language,
        )
        return target

    def write_dicom(self, folder: str | Path, formats: Iterable[str] = ("sr", "sc")) -> list[Path]:
        """Writes DICOM files for the archive that the study came from, and returns their paths.

        They repeat the patient data of the study's DICOM header.

        Args:
            folder: folder of the files.
            formats: of "sr", `<study>.sr.dcm`, a Structured Report (TID 1500); "gsps",
                `<study>.gsps-1.dcm` and so on, a presentation state for each series; "pdf",
                `<study>.pdf.dcm`, and "sc", `<study>.sc.dcm`, the summary sheet. All but "pdf" need the extra
                `dicom`.

        Raises:
            ValueError: highdicom is not installed, or the study has no slices.
        """
        self._check_slices("a DICOM result")
        chosen = [each for each in parse_formats(formats) if each.is_dicom]
        check_extras(chosen)
        paths: list[Path] = []
        for each in chosen:
            FORMAT_WRITERS[each](Path(folder), self.graded)
            paths += find_files(Path(folder) / f"{self.study_id}{each.spec.suffix}")
        return paths

    def _check_slices(self, name: str) -> None:
        if not self.study.planes:
            raise ValueError(f"The study must have a slice for {name}. Received: study {self.study_id}.")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Findings of all studies of a folder.

    Attributes:
        outcome: arrays of each study (not part of the public API).
    """

    outcome: Prediction

    @property
    def study_ids(self) -> tuple[str, ...]:
        """Ids of the studies that were graded."""
        return tuple(findings.study_id for findings in self.outcome.results)

    @property
    def rejects(self) -> tuple[Reject, ...]:
        """Files and studies that could not be used, with reasons."""
        return self.outcome.rejects

    @property
    def unanswered(self) -> tuple[UnansweredStudy, ...]:
        """Studies for which a server returned no prediction."""
        return self.outcome.unanswered

    def to_frame(self) -> "pd.DataFrame":
        """Returns the rows of `StudyResult.to_frame` of all studies, 25 each."""
        import pandas as pd

        frames = [findings_frame(findings) for findings in self.outcome.results]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
