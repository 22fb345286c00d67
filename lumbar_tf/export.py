"""`python -m lumbar_tf.export`: the trained ensemble as one bundle that TF Serving serves."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommaList, CommandOptions, PathList, run_command
from lumbar_tf.cli.console import Summary


class ExportOptions(CommandOptions):
    """Writes the ensemble as a bundle for TensorFlow Serving, and tests it before its version appears.

    A bundle that fails its self-test (a known study, its mirror image, each missing plane) is not written.
    Research use, not a medical device.
    """

    runs: Path = Field(
        Path("runs"),
        description="Folder of the runs.",
    )
    stacker: Path | None = Field(
        None,
        description="stacker.json of lumbar_tf.stack. By default stack/stacker.json in the folder of the "
        "runs.",
    )
    out: Path = Field(
        Path("models/lumbar"),
        description="Folder of versions.",
    )
    version: PositiveInt | None = Field(
        None,
        description="Version number. By default the next free one.",
    )
    members: CommaList = Field(
        (),
        description="Only these networks, comma-separated, such as sagittal_t2/densenet_narrow. The "
        "stacker is fitted again to their out-of-fold tables, which needs --labels.",
    )
    labels: PathList = Field(
        (),
        description="Label table train.csv, or several, comma-separated: for --members, and for the "
        "out-of-fold scores of the model card.",
    )
    metrics: Path | None = Field(
        None,
        description="metrics.json of lumbar_tf.evaluate on held-out studies, for the model card.",
    )
    data: str = Field(
        "",
        description="Origin of the training studies in words, for the model card; its first 150 characters "
        "stand at the top of every result.",
    )
    synthetic: bool = Field(
        False,
        description="The training studies are synthetic; the model card and every result state this first. "
        "Also found from the runs and --records.",
    )
    saliency: bool = Field(
        True,
        description="Leave out the signature that returns saliency maps; with it, a bundle takes a third "
        "longer to load and to answer its first request.",
    )
    records: Path = Field(
        Path("tfrecords"),
        description="Records of the training studies, if there are any: for reference.json, which "
        "lumbar_tf.monitor compares with.",
    )

    sign_key_file: Path | None = Field(
        None,
        description="PEM file of an Ed25519 private key that signs the bundle, for predict "
        "--require-signature. Needs the extra `signing`.",
    )

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
        sign_key_file=options.sign_key_file,
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
