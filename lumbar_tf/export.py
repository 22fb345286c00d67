"""`python -m lumbar_tf.export`: the trained ensemble as one bundle that TF Serving serves."""

from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommaList, CommandOptions, run_command
from lumbar_tf.cli.console import Summary


class ExportOptions(CommandOptions):
    """Writes the ensemble as a bundle that TF Serving serves, and tests it before its version appears.

    Flags:
        --runs       Folder of the runs (runs).
        --stacker    stacker.json, as lumbar_tf.stack wrote it (runs/stack/stacker.json).
        --out        Folder of versions (models/lumbar).
        --version    Version number; the next free one by default.
        --members    Only these, with commas between them (sagittal_t2/densenet_narrow,...): the stacker is
                     fitted anew to their out-of-fold tables, which takes --labels.
        --labels     The label table train.csv, or several with commas between them: for --members, and for
                     the model card's out-of-fold scores.
        --metrics    metrics.json of lumbar_tf.evaluate on held-out studies, for the model card.
        --data       Where the training studies came from, in words, for the model card.
        --synthetic  They are synthetic: the model card says so first.
        --nosaliency Leave out the signature that says where in the pictures the answers came from: it makes
                     the bundle a third slower to load and to answer its first request.
        --records    What it was trained on (tfrecords, where there are any): for reference.json, which
                     lumbar_tf.monitor compares with.

    A bundle that fails its self-test (a known study, its mirror image, each missing plane) is not written.
    Research use, not a medical device.
    """

    runs: Path = Path("runs")
    stacker: Path | None = None
    out: Path = Path("models/lumbar")
    version: PositiveInt | None = None
    members: CommaList = ()
    labels: CommaList = ()
    metrics: Path | None = None
    data: str = ""
    synthetic: bool = False
    saliency: bool = True
    records: Path = Path("tfrecords")

    after_interrupt: ClassVar[str] = "No version has appeared. Run the same command again."


def run_export(options: ExportOptions) -> Summary:
    """Exports the ensemble and summarises the bundle."""
    bundle = lumbar_tf.export(
        options.runs,
        options.out,
        stacker=options.stacker,
        version=options.version,
        members=options.members,
        labels=options.labels,
        metrics=options.metrics,
        data=options.data,
        synthetic=options.synthetic,
        saliency=options.saliency,
        records=options.records,
        verbose=True,
    )
    return Summary(
        "Exported",
        {
            "version": bundle.path.name,
            "members": bundle.members,
            "size": f"{bundle.size_bytes / 1e6:,.1f} MB",
        },
        {"bundle": bundle.path, "model card": bundle.model_card},
    )


if __name__ == "__main__":
    run_command(ExportOptions, run_export)
