"""Registry of the files that are written for each graded study, and their composition with grading."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lumbar_tf.interop.source_references import ReportReference, find_references
from lumbar_tf.monitoring.log import AnswerLog
from lumbar_tf.monitoring.quantities import measure_answer
from lumbar_tf.prediction.pipeline import GradingModel, Prediction, ResultWriter, predict_source
from lumbar_tf.prediction.results import GradedStudy
from lumbar_tf.reports.study_report import REPORTS_FOLDER, write_study_report
from lumbar_tf.reports.study_sheet import draw_study_sheet

SHEETS_FOLDER = "sheets"
DICOM_FOLDER = "dicom"
FHIR_FOLDER = "fhir"


@dataclass(frozen=True)
class OutputFormat:
    """A kind of file that is written for each graded study.

    Attributes:
        folder: the folder below the results' folder.
        write: writes a study's files into that folder.
        needs_slices: whether a study without a slice gets none: nothing to draw, or to refer to.
        needs_header: whether the files repeat patient data of the DICOM header (pseudonyms with a key).
        is_explained: whether the files show crop outlines and saliency.
        extra: a module that must be importable, and the extra of this package that installs it.
    """

    folder: str
    write: Callable[[Path, GradedStudy], None]
    needs_slices: bool = False
    needs_header: bool = False
    is_explained: bool = False
    extra: tuple[str, str] | None = None


def _write_sheet(folder: Path, graded: GradedStudy) -> None:
    draw_study_sheet(folder / f"{graded.study.study_id}.png", graded.study, graded.findings)


def _write_report(folder: Path, graded: GradedStudy) -> None:
    write_study_report(
        folder / f"{graded.study.study_id}.html",
        graded.study,
        graded.findings,
        graded.source,
        graded.crop_outlines,
        graded.saliency,
        language=graded.language,
    )


def _write_dicom(folder: Path, graded: GradedStudy, replaced: Sequence[ReportReference] = ()) -> None:
    # Here, not above: highdicom is an extra, and takes a second to import.
    from lumbar_tf.interop.dicom_sr import write_sr
    from lumbar_tf.interop.secondary_capture import write_secondary_capture

    study, findings, model = graded.study, graded.findings, graded.source.version
    references = find_references(study)
    write_sr(
        folder / f"{study.study_id}.sr.dcm",
        references,
        findings,
        model=model,
        replaced=replaced,
        language=graded.language,
    )
    write_secondary_capture(folder / f"{study.study_id}.sc.dcm", references, study, findings, model=model)


def _write_pdf(folder: Path, graded: GradedStudy) -> None:
    from lumbar_tf.interop.encapsulated_pdf import write_encapsulated_pdf

    references = find_references(graded.study)
    path = folder / f"{graded.study.study_id}.pdf.dcm"
    write_encapsulated_pdf(path, references, graded.study, graded.findings, model=graded.source.version)


def _write_fhir(folder: Path, graded: GradedStudy) -> None:
    from lumbar_tf.interop.fhir import write_fhir

    references = find_references(graded.study)
    path = folder / f"{graded.study.study_id}.json"
    write_fhir(path, references, graded.findings, model=graded.source.version, language=graded.language)


#: All formats by name, in the order in which they are written.
OUTPUT_FORMATS: Mapping[str, OutputFormat] = {
    "sheets": OutputFormat(SHEETS_FOLDER, _write_sheet, needs_slices=True),
    "report": OutputFormat(REPORTS_FOLDER, _write_report, is_explained=True),
    "dicom": OutputFormat(
        DICOM_FOLDER, _write_dicom, needs_slices=True, needs_header=True, extra=("highdicom", "dicom")
    ),
    "pdf": OutputFormat(DICOM_FOLDER, _write_pdf, needs_slices=True, needs_header=True),
    "fhir": OutputFormat(FHIR_FOLDER, _write_fhir, needs_slices=True, needs_header=True),
}


def find_formats(names: Iterable[str]) -> dict[str, OutputFormat]:
    """Returns the named formats, in the registry's order.

    Raises:
        ValueError: a name is not in `OUTPUT_FORMATS`, or this environment lacks what a format needs.
    """
    chosen = set(names)
    unknown = sorted(chosen - set(OUTPUT_FORMATS))
    if unknown:
        raise ValueError(f"`formats` must be of {', '.join(OUTPUT_FORMATS)}. Received: {', '.join(unknown)}.")
    for name in chosen:
        extra = OUTPUT_FORMATS[name].extra
        if extra is not None and find_spec(extra[0]) is None:
            raise ValueError(
                f"{name.upper()} results need {extra[0]}: pip install 'lumbar_tf[{extra[1]}]'. "
                "Received: an environment without it."
            )
    return {name: output for name, output in OUTPUT_FORMATS.items() if name in chosen}


def predict_to_folder(
    root: Path,
    model: GradingModel,
    out: Path | None,
    *,
    formats: Collection[str] = (),
    log: AnswerLog | None = None,
    key: bytes | None = None,
    max_sheets: int | None = None,
    replaced_reports: Sequence[ReportReference] = (),
    **options: Any,
) -> Prediction:
    """Grades the studies of a folder or zip, and writes tables and each study's files in several formats.

    Args:
        root: the studies.
        model: the exported ensemble, or a server of it.
        out: folder of the results; None writes nothing but the log.
        formats: names in `OUTPUT_FORMATS`.
        log: gets a row per study.
        key: replaces ids by keyed hashes.
        max_sheets: number of sheets to draw at most.
        replaced_reports: stored reports, oldest first, that the report of the format `dicom` replaces; only
            where `root` has one study.
        options: further options of `predict_source`.

    Raises:
        ValueError: see `find_formats` and `predict_source`.
    """
    chosen = find_formats(formats)
    if replaced_reports and "dicom" in chosen:
        chosen["dicom"] = replace(chosen["dicom"], write=partial(_write_dicom, replaced=replaced_reports))
    writers: list[ResultWriter] = []
    if log is not None:
        writers.append(_log_writer(log, has_pseudonyms=key is not None))
    if chosen and out is None:
        raise ValueError(f"`out` must name a folder for the formats {', '.join(chosen)}. Received: None.")
    if out is not None:
        for name, output in chosen.items():
            most = max_sheets if name == "sheets" else None
            writers.append(_format_writer(output, out / output.folder, most))
    return predict_source(
        root,
        model,
        out,
        key=key,
        with_saliency=any(output.is_explained for output in chosen.values()),
        keep_header=any(output.needs_header for output in chosen.values()),
        writers=writers,
        **options,
    )


def _format_writer(output: OutputFormat, folder: Path, most: int | None) -> ResultWriter:
    """Returns a writer of one format; of at most so many studies with slices, where there is a limit."""
    num_with_slices = 0

    def write(graded: GradedStudy) -> None:
        nonlocal num_with_slices
        has_slices = bool(graded.study.planes)
        num_with_slices += has_slices
        if (has_slices or not output.needs_slices) and (most is None or num_with_slices <= most):
            output.write(folder, graded)

    return write


def _log_writer(log: AnswerLog, *, has_pseudonyms: bool) -> ResultWriter:
    """Returns a writer of the log for `monitor`; a study's id is logged only if it is a pseudonym."""

    def append(graded: GradedStudy) -> None:
        findings = graded.findings
        values = measure_answer(
            findings.probability,
            findings.members,
            findings.landmarks,
            findings.flags,
            graded.examples,
            extras=findings.extras,
        )
        study_id = graded.study.study_id if has_pseudonyms else None
        log.append(values, model=graded.source.version, study_id=study_id)

    return append
