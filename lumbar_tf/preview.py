"""`python -m lumbar_tf.preview`: a picture of what a plane's graders are trained on."""

from pathlib import Path

from pydantic import PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommandOptions, UsageError, run_command
from lumbar_tf.cli.console import Summary
from lumbar_tf.config import PlaneConfig, default_config_path, load_plane_config
from lumbar_tf.labels import Plane


class PreviewOptions(CommandOptions):
    """Draws augmented training crops beside the plain ones, with level, side and label.

    Flags:
        --plane        sagittal_t1, sagittal_t2 or axial_t2.
        --config       The plane's YAML (configs/<plane>.yaml).
        --set          Overrides, such as --set grader.training.augmentation.mixup=0.5 or --set seed=3.
        --records      Where build_records put the records (tfrecords).
        --folds        Folds file (folds.csv beside the records).
        --runs         Where training put the localizers' points and measured their error (runs). Without any,
                       only annotated points have crops, and they are moved as if the error were 2 mm.
        --num-studies  How many studies (4).
        --out          The PNG (preview.png).

    The crops come from the dataset that trains, in batches as large; a mixed crop's target is written in
    shares. Nothing is written but the picture.
    """

    plane: Plane
    config: Path | None = None
    set: tuple[str, ...] = ()
    records: Path = Path("tfrecords")
    folds: Path | None = None
    runs: Path = Path("runs")
    num_studies: PositiveInt = 4
    out: Path = Path("preview.png")


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
