"""`python -m lumbar_tf.inspect_data`: what is in a data set, as tables and one page to look at."""

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommandOptions, PathList, run_command
from lumbar_tf.cli.console import Summary, print_tables


class InspectDataOptions(CommandOptions):
    """Counts the contents of a data set and shows them on one page.

    The page loads nothing from elsewhere and contains no patient data but ids.
    """

    data: PathList = Field(
        description="Folder or zip, or several, comma-separated, as for build_records.",
    )
    out: Path = Field(
        Path("inspection"),
        description="Folder for inspection.html and inspection.json.",
    )
    workers: PositiveInt = Field(
        1,
        description="Number of processes.",
    )
    max_montages: NonNegativeInt = Field(
        12,
        description="Number of studies to draw, evenly spread; 12 make a page of about 7 MB.",
    )
    series_map: Path | None = Field(
        None,
        description="CSV file study_id,series_id,series_description that overrides tables and headers; the "
        "description `none` excludes a series.",
    )
    pseudonym_key_file: Path | None = Field(
        None,
        description="Show hashes keyed with this file instead of ids, as build_records does.",
    )


def run_inspect_data(options: InspectDataOptions) -> Summary:
    """Inspects the data and prints its counts."""
    found = lumbar_tf.inspect_data(
        options.data,
        options.out,
        workers=options.workers,
        max_montages=options.max_montages,
        series_map=options.series_map,
        pseudonym_key_file=options.pseudonym_key_file,
        verbose=True,
    )
    print_tables(*found.console_tables())
    return Summary(
        "Inspected",
        {"studies": found.num_studies, "usable": found.num_usable},
        {"page": found.page},
    )


if __name__ == "__main__":
    run_command(InspectDataOptions, run_inspect_data)
