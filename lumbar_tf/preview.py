"""`python -m lumbar_tf.preview`: a picture of what a plane's graders are trained on."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommandOptions, UsageError, run_command
from lumbar_tf.cli.console import Summary
from lumbar_tf.config import PlaneConfig, default_config_path, load_plane_config
from lumbar_tf.labels import Plane


class PreviewOptions(CommandOptions):
    """Draws augmented training crops beside the plain ones, with level, side and label.

    The crops come from the dataset that trains, in batches of the same size; the target of a mixed crop is
    written as shares. Nothing but the picture is written.
    """

    plane: Plane = Field(
        description="sagittal_t1, sagittal_t2 or axial_t2.",
    )
    config: Path | None = Field(
        None,
        description="YAML file of the plane. By default configs/<plane>.yaml.",
    )
    set: tuple[str, ...] = Field(
        (),
        description="Overrides, such as --set grader.training.augmentation.mixup=0.5 or --set seed=3.",
    )
    records: Path = Field(
        Path("tfrecords"),
        description="Folder of the records.",
    )
    folds: Path | None = Field(
        None,
        description="Folds file. By default folds.csv of the records.",
    )
    runs: Path = Field(
        Path("runs"),
        description="Folder of the runs, with the localizers' points and their measured error. Without "
        "them only annotated points have crops, moved by an error of 2 mm.",
    )
    num_studies: PositiveInt = Field(
        4,
        description="Number of studies.",
    )
    out: Path = Field(
        Path("preview.png"),
        description="PNG file.",
    )

    writes_file: ClassVar[bool] = True


def run_preview(options: PreviewOptions) -> Summary:
    """Draws the picture that the options describe."""
    num_studies = lumbar_tf.preview(
        _read_config(options),
        options.out,
        records=options.records,
        folds=options.folds,
        runs=options.runs,
        num_studies=options.num_studies,
        verbose=True,
    )
    return Summary("Preview drawn", {"studies": num_studies}, {"picture": options.out})


def _read_config(options: PreviewOptions) -> PlaneConfig:
    path = options.config or default_config_path(options.plane)
    config = load_plane_config(path, overrides=options.set)
    if config.plane is not options.plane:
        raise UsageError(f"{path} configures {config.plane.value}, not --plane={options.plane.value}.")
    return config


if __name__ == "__main__":
    run_command(PreviewOptions, run_preview)
