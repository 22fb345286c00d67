"""`python -m lumbar_tf.inspect_data`: what is in a data set, as tables and one page to look at."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt, PositiveInt

from lumbar_tf.cli.command import CommaList, CommandOptions, existing_file, run_command
from lumbar_tf.cli.console import Summary, print_tables
from lumbar_tf.cli.progress import progress_bar
from lumbar_tf.labels import Plane

if TYPE_CHECKING:
    from rich.table import Table

    from lumbar_tf.reports.census import Census


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


def inspect(options: InspectDataOptions) -> Summary:
    """Looks, shows tables, and says where the page is."""
    # Here, not above: pandas takes a second to import, and --help must not wait for it.
    from lumbar_tf.privacy.pseudonyms import read_key
    from lumbar_tf.reports.inspection import inspect_sources
    from lumbar_tf.reports.inspection_page import PAGE_NAME

    key = read_key(options.pseudonym_key_file) if options.pseudonym_key_file else None
    census = inspect_sources(
        [Path(each) for each in options.data],
        options.out,
        max_montages=options.max_montages,
        workers=options.workers,
        series_map=existing_file(options.series_map) if options.series_map else None,
        key=key,
        progress=lambda total: progress_bar("Looking", total),
    )
    _show_census(census)
    return Summary(
        "Looked at",
        {"studies": census.num_studies, "usable": census.num_usable},
        {"page": options.out / PAGE_NAME},
    )


def _show_census(census: "Census") -> None:
    planes = _table("Planes", "studies", "series", "slices")
    for count in census.planes:
        name = count.plane.series_description
        planes.add_row(name, str(count.num_studies), str(count.num_series), str(count.num_slices))
    print_tables(planes)
    for breakdown in (each for each in census.breakdowns if each.rows):
        table = _table(breakdown.attribute.value, *(plane.series_description for plane in Plane))
        for value, counts in breakdown.condensed().rows:
            table.add_row(value, *(str(counts.get(plane, 0)) for plane in Plane))
        print_tables(table)
    if census.labels is not None:
        print_tables(_label_table(census))
    if census.left_out or census.contradictions:
        table = _table("Left out, noted, contradictory", "kind", "count", "studies")
        for each in (*census.left_out, *census.contradictions):
            table.add_row(each.code, each.kind, str(each.count), str(each.num_studies))
        print_tables(table)


def _label_table(census: "Census") -> "Table":
    from lumbar_tf.labels import FINDINGS
    from lumbar_tf.reports.inspection_page import LABEL_NAMES

    table = _table("Labels", *LABEL_NAMES)
    if census.labels is not None:
        for finding, row in zip(FINDINGS, census.labels.tolist(), strict=True):
            table.add_row(finding.name, *map(str, row))
    return table


def _table(title: str, *columns: str) -> "Table":
    from rich.table import Table

    table = Table(title, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[0].min_width = 24
    for name in columns:
        table.add_column(name, justify="right")
    return table


if __name__ == "__main__":
    run_command(InspectDataOptions, inspect)
