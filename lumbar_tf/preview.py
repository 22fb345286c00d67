"""`python -m lumbar_tf.preview`: a picture of what a plane's graders are trained on."""

from pathlib import Path

from pydantic import PositiveInt

from lumbar_tf.cli.command import CommandOptions, UsageError, run_command
from lumbar_tf.cli.console import Summary
from lumbar_tf.cli.progress import show_activity
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


def preview(options: PreviewOptions) -> Summary:
    """Draws the sheet that the options ask for."""
    config = _read_config(options)
    # Here, not above: TensorFlow takes seconds to import, and --help must not wait for it.
    from lumbar_tf.inputs.crop_layout import CropLayout
    from lumbar_tf.records.manifest import read_manifest
    from lumbar_tf.reports.preview_crops import collect_previews
    from lumbar_tf.reports.preview_sheet import draw_preview
    from lumbar_tf.tables.folds import FOLDS_NAME, read_folds
    from lumbar_tf.training.runs import PlaneRun

    manifest = read_manifest(options.records)
    if not manifest.planes.get(config.plane.value):
        raise ValueError(
            f"The records in {options.records} hold no study with the plane {config.plane.value}."
        )
    folds = read_folds(options.folds or options.records / FOLDS_NAME, manifest.patient_groups)
    run = PlaneRun(config, options.records, options.runs, manifest, folds)
    with show_activity("Cutting crops"):
        previews = collect_previews(run, num_studies=options.num_studies)
    crop = config.grader.crop
    title = f"{config.plane.value}: crops of {crop.side_mm:g} mm, {crop.side_px} px, seed {config.seed}"
    layout = CropLayout.of(config)
    is_mirrored = layout.is_sided and crop.mirror_right
    note = f"Central slices{', right sides mirrored to look left' if is_mirrored else ''}."
    with show_activity("Drawing"):
        draw_preview(options.out, previews, layout, title=title, note=note)
    return Summary("Preview drawn", {"studies": len(previews)}, {"picture": options.out})


def _read_config(options: PreviewOptions) -> PlaneConfig:
    path = options.config or default_config_path(options.plane)
    config = load_plane_config(path, overrides=options.set)
    if config.plane is not options.plane:
        raise UsageError(f"{path} configures {config.plane.value}, not --plane={options.plane.value}.")
    return config


if __name__ == "__main__":
    run_command(PreviewOptions, preview)
