"""`python -m lumbar_tf.synthetic --out=DIR --studies=40 --seed=0`."""

from pathlib import Path

from pydantic import Field

from lumbar_tf.cli.command import CommandOptions, UsageError, run_command
from lumbar_tf.cli.console import Summary
from lumbar_tf.cli.progress import progress_bar
from lumbar_tf.synthetic.cohort import CohortOptions, write_cohort
from lumbar_tf.synthetic.protocol import Resolution


class SyntheticOptions(CommandOptions):
    """Writes synthetic lumbar MRI studies in the layout of the RSNA 2024 competition.

    --out: folder to write to.
    --studies: how many studies.
    --seed: a study depends on the seed and its place in the cohort only.
    --first-study-id: ids count upwards from here.
    --workers: processes that render; the files do not depend on it.
    --resolution: full (matrices as in the real data) or small (quick to train on).
    --severity-shift: 0 copies the real label frequencies; 0.45 makes 12% of findings severe.
    --sheet: also draw a few of the studies into this PNG, to look at.
    """

    out: Path
    studies: int = Field(default=40, ge=1)
    seed: int = Field(default=0, ge=0)
    first_study_id: int = Field(default=700000001, ge=1)
    workers: int = Field(default=1, ge=1)
    resolution: Resolution = Resolution.SMALL
    severity_shift: float = Field(default=0.0, ge=-3, le=3)
    sheet: Path | None = None


def write_synthetic_studies(options: SyntheticOptions) -> Summary:
    """Writes the cohort and, if asked, the sheet."""
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out must be a folder. Received: {options.out}.")
    cohort = CohortOptions(
        num_studies=options.studies,
        seed=options.seed,
        first_study_id=options.first_study_id,
        workers=options.workers,
        resolution=options.resolution,
        severity_shift=options.severity_shift,
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
