"""`python -m lumbar_tf.predict`: DICOM studies to findings."""

from collections import Counter
from pathlib import Path

from lumbar_tf.cli import CommandOptions, run_command, write_options
from lumbar_tf.progress import progress_bar


class PredictOptions(CommandOptions):
    """Grades one or many studies with an exported ensemble.

    Flags:
        --study     A study's folder, a folder of studies (the competition's too, as it is unzipped) or a zip.
        --model     An exported version, or the folder of versions: the newest is taken (models/lumbar).
        --out       Where the answers go (predictions).
        --nosheets  Draw no PNG sheets.

    Writes submission.csv (the competition's format and head), probability.csv (calibrated probabilities),
    members.csv (each member alone), results.json (both heads, with landmarks and flags) and
    sheets/<study>.png. Research use, not a medical device.
    """

    study: Path
    model: Path = Path("models/lumbar")
    out: Path = Path("predictions")
    sheets: bool = True


def predict(options: PredictOptions) -> None:
    """Grades and says where the answers are."""
    # Here, not above: TensorFlow takes seconds to import, and --help must not wait for it.
    from lumbar_tf.ensemble.bundle import ServedEnsemble
    from lumbar_tf.reporting.prediction import predict_source

    ensemble = ServedEnsemble(options.model)
    prediction = predict_source(
        options.study,
        ensemble,
        options.out,
        max_sheets=None if options.sheets else 0,
        progress=lambda total: progress_bar("Grading", total),
    )
    # The path may hold a name that is not ours to keep.
    write_options(options.model_copy(update={"study": Path(options.study.name)}), options.out)
    print(f"{len(prediction.results)} studies graded with {ensemble.path} -> {options.out}")
    for reason, count in Counter(each.reason.value for each in prediction.rejects).items():
        print(f"  {reason}: {count}")


if __name__ == "__main__":
    run_command(PredictOptions, predict)
