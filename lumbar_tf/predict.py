"""`python -m lumbar_tf.predict`: DICOM studies to findings."""

from collections import Counter
from pathlib import Path

from lumbar_tf.cli import CommandOptions, run_command, write_options
from lumbar_tf.progress import progress_bar


class PredictOptions(CommandOptions):
    """Grades one or many studies with an exported ensemble.

    Flags:
        --study               What a PACS exports: a study's folder, a folder of studies (the competition's
                              too, as it is unzipped), nested folders, a DICOMDIR or a zip.
        --model               An exported version, or the folder of versions: the newest is taken
                              (models/lumbar).
        --out                 Where the answers go (predictions).
        --series-map          A CSV study_id,series_id,series_description that overrides what tables and
                              headers say; `none` leaves a series out.
        --pseudonym-key-file  Replace ids by hashes keyed with this file.
        --strict              Make the first fault in the input fatal.
        --nosheets            Draw no PNG sheets.

    Writes submission.csv (the competition's format and head), probability.csv (calibrated probabilities),
    members.csv (each member alone), results.json (both heads, with landmarks and flags), series.csv (which
    series were taken), rejects.csv (what was left out, and why) and sheets/<study>.png. Research use, not a
    medical device.
    """

    study: Path
    model: Path = Path("models/lumbar")
    out: Path = Path("predictions")
    series_map: Path | None = None
    pseudonym_key_file: Path | None = None
    strict: bool = False
    sheets: bool = True


def predict(options: PredictOptions) -> None:
    """Grades and says where the answers are."""
    # Here, not above: TensorFlow takes seconds to import, and --help must not wait for it.
    from lumbar_tf.data.pseudonyms import read_key
    from lumbar_tf.ensemble.self_test import open_bundle
    from lumbar_tf.imaging.sources.listing import shown_name
    from lumbar_tf.reporting.prediction import predict_source

    ensemble = open_bundle(options.model)
    prediction = predict_source(
        options.study,
        ensemble,
        options.out,
        series_map=options.series_map,
        key=read_key(options.pseudonym_key_file) if options.pseudonym_key_file else None,
        is_strict=options.strict,
        max_sheets=None if options.sheets else 0,
        progress=lambda total: progress_bar("Grading", total),
    )
    # The path may hold a name that is not ours to keep.
    shown = Path(shown_name(options.study, options.study.parent))
    write_options(options.model_copy(update={"study": shown}), options.out)
    print(f"{len(prediction.results)} studies graded with {ensemble.path} -> {options.out}")
    for reason, count in Counter(each.reason.value for each in prediction.rejects).items():
        print(f"  {reason}: {count}")


if __name__ == "__main__":
    run_command(PredictOptions, predict)
