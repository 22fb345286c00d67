"""`python -m lumbar_tf.recalibrate`: a bundle's probabilities fitted to a site's labelled studies."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

import lumbar_tf
from lumbar_tf.cli.command import CommandOptions, PathList, run_command
from lumbar_tf.cli.console import ExitStatus, Summary, print_tables


class RecalibrateOptions(CommandOptions):
    """Fits a bundle's calibration to labelled studies of a site, and writes it as a new version.

    Needs the labels of at least 25 patients, and predictions of lumbar_tf.predict with this bundle. A family
    of findings is recalibrated only where that lowers the log loss of patients that it was not fitted to; if
    none is, no version is written and the exit status is 1. The earlier version stays. Research use, not a
    medical device.
    """

    predictions: Path = Field(
        Path("predictions"),
        description="Folder of the results of lumbar_tf.predict, with members.csv and probability.csv.",
    )
    labels: PathList = Field(
        ("train.csv",),
        description="Label table, or several, comma-separated: of studies that did not train the ensemble.",
    )
    model: Path | None = Field(
        None,
        description="Exported version, or folder of exported versions, of which the newest is recalibrated. "
        "Default: models/lumbar, or the pretrained ensemble of the package if there is none.",
    )
    out: Path | None = Field(
        None,
        description="Folder of versions. By default that of the model; models/lumbar for the pretrained "
        "ensemble.",
    )
    patients: Path | None = Field(
        None,
        description="CSV file study_id,patient_id, needed where a patient has several studies.",
    )
    require_signature: Path | None = Field(
        None,
        description="PEM file of an Ed25519 public key: a bundle that was not signed with the private key is "
        "refused. Needs the extra `signing`.",
    )
    sign_key_file: Path | None = Field(
        None,
        description="PEM file of an Ed25519 private key that signs the new version. Needs the extra "
        "`signing`.",
    )

    after_interrupt: ClassVar[str] = "No version has appeared. Run the same command again."


def run_recalibrate(options: RecalibrateOptions) -> Summary:
    """Recalibrates the bundle and prints the figures of each family."""
    result = lumbar_tf.recalibrate(
        options.predictions,
        options.labels,
        model=options.model,
        out=options.out,
        patients=options.patients,
        require_signature=options.require_signature,
        sign_key_file=options.sign_key_file,
        verbose=True,
    )
    print_tables(result.console_table(f"{result.num_studies} studies, {result.num_patients} patients"))
    path = result.path
    return Summary(
        "No version written: no family gains" if path is None else "Recalibrated",
        {
            "studies": result.num_studies,
            "patients": result.num_patients,
            "families": list(result.families),
            **({} if path is None else {"version": path.name}),
        },
        {} if path is None else {"bundle": path},
        result.notes,
        status=ExitStatus.DATA if path is None else ExitStatus.DONE,
    )


if __name__ == "__main__":
    run_command(RecalibrateOptions, run_recalibrate)
