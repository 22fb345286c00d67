"""`python -m lumbar_tf.inspect_data`: what is in a data set, as tables and one page to look at."""

from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommaList, CommandOptions, run_command
from lumbar_tf.cli.console import Summary, print_tables


class InspectDataOptions(CommandOptions):
    """Counts what is in a data set and shows it on one page.

    Flags:
        --data                One folder or zip, or several with commas, as for build_records.
        --out                 Where inspection.html and inspection.json go (inspection).
        --workers             Processes that read studies (1).
        --max-montages        Studies to draw, evenly spread (12: a page of about 7 MB).
        --series-map          A CSV with study_id, series_id, series_description that overrides what tables
                              and headers say of a series; "none" leaves it out.
        --pseudonym-key-file  Shows keyed hashes instead of ids, as build_records does.

    The page loads nothing from anywhere and names nothing of a patient but ids.
    """

    data: CommaList
    out: Path = Path("inspection")
    workers: PositiveInt = 1
    max_montages: NonNegativeInt = 12
    series_map: Path | None = None
    pseudonym_key_file: Path | None = None


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
