"""Writers of the files of each graded study, and their composition with grading."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lumbar_tf.interop.output_formats import OutputFormat, check_extras
from lumbar_tf.interop.source_references import ReportReference, find_references
from lumbar_tf.monitoring.log import AnswerLog
from lumbar_tf.monitoring.quantities import measure_answer
from lumbar_tf.prediction.pipeline import GradingModel, Prediction, ResultWriter, predict_source
from lumbar_tf.prediction.results import GradedStudy
from lumbar_tf.reports.study_report import write_study_report
from lumbar_tf.reports.study_sheet import draw_study_sheet


def _path(folder: Path, graded: GradedStudy, output: OutputFormat) -> Path:
    return folder / f"{graded.study.study_id}{output.spec.suffix}"


def _write_sheet(folder: Path, graded: GradedStudy) -> None:
    draw_study_sheet(_path(folder, graded, OutputFormat.SHEETS), graded.study, graded.findings)


def _write_report(folder: Path, graded: GradedStudy) -> None:
    write_study_report(
        _path(folder, graded, OutputFormat.REPORT),
        graded.study,
        graded.findings,
        graded.source,
        graded.crop_outlines,
        graded.saliency,
        language=graded.language,
    )


def _write_sr(folder: Path, graded: GradedStudy, replaced: Sequence[ReportReference] = ()) -> None:
    # Here, not above: highdicom is an extra, and takes a second to import.
    from lumbar_tf.interop.dicom_sr import write_sr

    write_sr(
        _path(folder, graded, OutputFormat.SR),
        find_references(graded.study),
        graded.findings,
        model=graded.source.version,
        replaced=replaced,
        language=graded.language,
    )


def _write_gsps(folder: Path, graded: GradedStudy) -> None:
    from lumbar_tf.interop.presentation_state import write_presentation_states

    write_presentation_states(
        _path(folder, graded, OutputFormat.GSPS),
        find_references(graded.study),
        graded.study,
        graded.findings,
        graded.crop_outlines,
        model=graded.source.version,
    )


def _write_pdf(folder: Path, graded: GradedStudy) -> None:
    from lumbar_tf.interop.encapsulated_pdf import write_encapsulated_pdf

    path, references = _path(folder, graded, OutputFormat.PDF), find_references(graded.study)
    write_encapsulated_pdf(path, references, graded.study, graded.findings, model=graded.source.version)


def _write_sc(folder: Path, graded: GradedStudy) -> None:
    from lumbar_tf.interop.secondary_capture import write_secondary_capture

    path, references = _path(folder, graded, OutputFormat.SC), find_references(graded.study)
    write_secondary_capture(path, references, graded.study, graded.findings, model=graded.source.version)


def _write_fhir(folder: Path, graded: GradedStudy) -> None:
    from lumbar_tf.interop.fhir import write_fhir

    path, references = _path(folder, graded, OutputFormat.FHIR), find_references(graded.study)
    write_fhir(path, references, graded.findings, model=graded.source.version, language=graded.language)


#: Writes a study's files of a format into the format's folder.
FormatWriter = Callable[[Path, GradedStudy], None]
FORMAT_WRITERS: Mapping[OutputFormat, FormatWriter] = {
    OutputFormat.SHEETS: _write_sheet,
    OutputFormat.REPORT: _write_report,
    OutputFormat.SR: _write_sr,
    OutputFormat.GSPS: _write_gsps,
    OutputFormat.PDF: _write_pdf,
    OutputFormat.SC: _write_sc,
    OutputFormat.FHIR: _write_fhir,
}


def predict_to_folder(
    root: Path,
    model: GradingModel,
    out: Path | None,
    *,
    formats: Collection[OutputFormat] = (),
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
        formats: the formats.
        log: gets a row per study.
        key: replaces ids by keyed hashes.
        max_sheets: number of sheets to draw at most.
        replaced_reports: stored reports, oldest first, that the structured report replaces; only where
            `root` has one study.
        options: further options of `predict_source`.

    Raises:
        ValueError: see `check_extras` and `predict_source`.
    """
    check_extras(formats)
    names = {each.value for each in formats}
    if names and out is None:
        raise ValueError(
            f"`out` must name a folder for the formats {', '.join(sorted(names))}. Received: None."
        )
    file_writers: dict[OutputFormat, FormatWriter] = {
        **FORMAT_WRITERS,
        OutputFormat.SR: partial(_write_sr, replaced=replaced_reports),
    }
    writers: list[ResultWriter] = []
    if log is not None:
        writers.append(_log_writer(log, has_pseudonyms=key is not None))
    if out is not None:
        for output in OutputFormat:
            if output in formats:
                most = max_sheets if output is OutputFormat.SHEETS else None
                writers.append(_format_writer(output, file_writers[output], out / output.spec.folder, most))
    return predict_source(
        root,
        model,
        out,
        key=key,
        with_saliency=any(output.spec.shows_saliency for output in formats),
        with_outlines=any(output.spec.shows_crops for output in formats),
        keep_header=any(output.spec.needs_header for output in formats),
        writers=writers,
        **options,
    )


def _format_writer(
    output: OutputFormat, write_files: FormatWriter, folder: Path, most: int | None
) -> ResultWriter:
    """Returns a writer of one format; of at most so many studies with slices, where there is a limit."""
    num_with_slices = 0

    def write(graded: GradedStudy) -> None:
        nonlocal num_with_slices
        has_slices = bool(graded.study.planes)
        num_with_slices += has_slices
        if (has_slices or not output.spec.needs_slices) and (most is None or num_with_slices <= most):
            write_files(folder, graded)

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
