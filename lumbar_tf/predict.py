"""`python -m lumbar_tf.predict`: DICOM studies to findings."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

import lumbar_tf
from lumbar_tf.cli.command import OnlyWith, run_command, write_options
from lumbar_tf.cli.console import ExitStatus, Figure, Summary
from lumbar_tf.dicom.identifiers import display_name, is_safe_id
from lumbar_tf.interop.grading_options import GradingOptions, check_pacs_extra, protect_patient_data
from lumbar_tf.interop.output_formats import OutputFormat

if TYPE_CHECKING:
    from lumbar_tf.interop.dicomweb import DicomwebArchive

_SERVER = OnlyWith("server")


class PredictOptions(GradingOptions):
    """Grades one or several studies with an exported ensemble, loaded here or behind a server.

    Writes submission.csv (the competition's format and scores), probability.csv (calibrated probabilities),
    intervals.csv (the same with 95% bounds of the variation between ensembles that are trained again),
    members.csv (each member of the ensemble), results.json (both scores, intervals, landmarks and flags),
    series.csv (the series that were used), rejects.csv (files and series that were not used, with reasons),
    and the files of --formats for each study. If a server returned no result for a study, unanswered.csv
    lists it and the exit status is 1. Research use, not a medical device.
    """

    study: Path = Field(
        description="Export of a PACS: the folder of a study, a folder of studies (such as the unzipped "
        "competition data), nested folders, a DICOMDIR or a zip. With --dicomweb, a StudyInstanceUID."
    )
    out: Path = Field(Path("predictions"), description="Folder for the results.")
    series_map: Path | None = Field(
        None,
        description="CSV file with study_id,series_id,series_description that overrides tables and headers; "
        "the description `none` excludes a series.",
    )
    pseudonym_key_file: Path | None = Field(
        None,
        description="Replace IDs in all results, DICOM and FHIR files too, by hashes keyed with this file.",
    )
    strict: bool = Field(
        False,
        description="Stop at the first fault in the input and at the first study without a result from the "
        "server.",
    )
    attempts: Annotated[PositiveInt, _SERVER] = Field(
        5, description="Maximum number of times that a request is sent; only transient failures are retried."
    )
    in_flight: Annotated[PositiveInt, _SERVER] = Field(
        4, description="Number of studies that are sent at a time; a batching server then batches them."
    )

    after_interrupt: ClassVar[str] = (
        "No table was written. Files of single studies in --out (those of --formats) are complete. "
        "Run the same command again: it grades all studies again, and appends them to a --log again."
    )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.dicomweb is not None and not is_safe_id(str(self.study)):
            raise ValueError("--study must be a StudyInstanceUID where --dicomweb is given")
        if self.store and self.pseudonym_key_file is not None:
            raise ValueError(
                "--store must not come with --pseudonym-key-file: the archive does not have the pseudonyms"
            )
        return self


def run_predict(options: PredictOptions) -> Summary:
    """Grades the studies and summarises the results."""
    if options.dicomweb is not None:
        check_pacs_extra()
    formats = options.chosen_formats()
    # Only the study that was requested, whatever an archive sends.
    is_restricted = options.dicomweb is not None and options.pseudonym_key_file is None
    with (
        protect_patient_data(),
        _open_study(options) as (root, archive),
        _load_ensemble(options) as ensemble,
    ):
        predictions = ensemble.predict_studies(
            root,
            options.out,
            formats=[each.value for each in formats],
            series_map=options.series_map,
            pseudonym_key_file=options.pseudonym_key_file,
            strict=options.strict,
            study_id=str(options.study) if is_restricted else None,
            log=options.log,
            max_in_flight=options.in_flight if options.server else 1,
            language=options.language.value,
            verbose=True,
        )
        num_stored = _store_results(archive, options) if archive is not None and options.store else None
        # The path may contain a patient's name.
        shown = Path(display_name(options.study, options.study.parent))
        write_options(options.model_copy(update={"study": shown}), options.out)
    return _summarise(predictions, ensemble, num_stored, options)


def _summarise(
    predictions: "lumbar_tf.Predictions",
    ensemble: "lumbar_tf.Ensemble",
    num_stored: int | None,
    options: PredictOptions,
) -> Summary:
    reasons = Counter(reject.reason.value for reject in predictions.rejects)
    paths = {"tables": options.out / "submission.csv", "results": options.out / "results.json"}
    if OutputFormat.REPORT in options.formats:
        paths["reports"] = options.out / "reports"
    if reasons:
        paths["left out, and why"] = options.out / "rejects.csv"
    notes = []
    if predictions.unanswered:
        paths["without an answer"] = options.out / "unanswered.csv"
        first = predictions.unanswered[0]
        notes.append(f"Without an answer, the first: study {first.study_id}: {first.message}")
    figures: dict[str, Figure] = {
        "studies": len(predictions.study_ids),
        "model": ensemble.source,
        "training data": ensemble.training_note,
        "left out or noted": [f"{count} x {reason}" for reason, count in reasons.items()],
        "without an answer": len(predictions.unanswered),
    }
    if num_stored is not None:
        figures["results stored in the archive"] = num_stored
    return Summary(
        "Graded (research use, not a medical device)",
        figures,
        paths,
        notes,
        status=ExitStatus.DATA if predictions.unanswered else ExitStatus.DONE,
    )


@contextmanager
def _open_study(options: PredictOptions) -> Iterator[tuple[Path, "DicomwebArchive | None"]]:
    """Yields the path of the studies; from an archive they are fetched, and removed at the end."""
    if options.dicomweb is None:
        yield options.study, None
        return
    from lumbar_tf.interop.dicomweb import open_archive
    from lumbar_tf.interop.fetch_folder import fetch_folder

    with (
        fetch_folder() as scratch,
        open_archive(options.dicomweb_connection(), scratch=scratch) as archive,
        archive.fetch(str(options.study)) as fetched,
    ):
        yield fetched.folder, archive


def _store_results(archive: "DicomwebArchive", options: PredictOptions) -> int:
    """Stores the DICOM results of the study and returns their number."""
    from lumbar_tf.interop.study_grading import find_results, store_results

    results = find_results(options.out, str(options.study), options.chosen_formats())
    return len(list(store_results(archive, options.out, results)))


def _load_ensemble(options: PredictOptions) -> "lumbar_tf.Ensemble":
    """Loads the bundle, or connects to the server."""
    return lumbar_tf.load_ensemble(
        with_saliency=options.shows_saliency,
        attempts=options.attempts,
        verbose=True,
        **options.model_arguments(),
    )


if __name__ == "__main__":
    run_command(PredictOptions, run_predict)
