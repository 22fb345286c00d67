"""Command `python -m lumbar_tf.synthetic`."""

from pathlib import Path

from pydantic import Field

from lumbar_tf.cli.command import CommandOptions, UsageError, run_command
from lumbar_tf.cli.console import Summary
from lumbar_tf.cli.progress import progress_bar
from lumbar_tf.config import load_variety_config
from lumbar_tf.synthetic.cohort import CohortOptions, write_cohort
from lumbar_tf.synthetic.protocol import Resolution


class SyntheticOptions(CommandOptions):
    """Writes synthetic lumbar MRI studies in the layout of the RSNA 2024 competition."""

    out: Path = Field(description="Output folder.")
    studies: int = Field(40, ge=1, description="Number of studies.")
    seed: int = Field(
        0, ge=0, description="Seed. A study depends only on the seed and its index in the cohort."
    )
    first_study_id: int = Field(700000001, ge=1, description="Id of the first study; the others follow.")
    workers: int = Field(
        1, ge=1, description="Number of rendering processes, which does not change the files."
    )
    resolution: Resolution = Field(
        Resolution.SMALL,
        description="Matrices of the images: full, as in the real data, or small, for fast training.",
    )
    severity_shift: float = Field(
        0.0,
        ge=-3,
        le=3,
        description="Shift of the latent severities. 0 gives the label frequencies of the real data, 0.45 "
        "makes 12% of the findings severe.",
    )
    variety: Path | None = Field(
        None,
        description="YAML file with the distributions of varied patients and scans, such as "
        "configs/pretrained/variety.yaml. By default plain ones.",
    )
    set: tuple[str, ...] = Field(
        (), description="Overrides of --variety, such as --set anatomy.scoliosis_rate=0.5."
    )
    sheet: Path | None = Field(None, description="PNG with an overview of a few of the studies.")


def write_synthetic_studies(options: SyntheticOptions) -> Summary:
    """Writes the cohort and, on request, the overview sheet."""
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out must be a folder. Received: {options.out}.")
    if options.set and options.variety is None:
        raise UsageError(f"--set needs --variety. Received: {', '.join(options.set)}.")
    cohort = CohortOptions(
        num_studies=options.studies,
        seed=options.seed,
        first_study_id=options.first_study_id,
        workers=options.workers,
        resolution=options.resolution,
        severity_shift=options.severity_shift,
        variety=load_variety_config(options.variety, overrides=options.set) if options.variety else None,
    )
    write_cohort(options.out, cohort, progress=lambda total: progress_bar("Rendering", total))
    paths = {"cohort": options.out}
    if options.sheet is not None:
        from lumbar_tf.synthetic.sheet import draw_cohort_sheet

        draw_cohort_sheet(options.sheet, cohort)
        paths["sheet"] = options.sheet
    return Summary("Synthetic studies written", {"studies": options.studies}, paths)


if __name__ == "__main__":
    run_command(SyntheticOptions, write_synthetic_studies)
